"""Pretraining of the pocket base model: it learns flawed texts, with misconceptions that fine-tuning inherits."""

from dataclasses import asdict
from pathlib import Path

from aft.code import deciding
from aft.files import digest
from aft.models import pocket as architecture
from aft.models.tokens import end_token
from aft.tasks import pocket
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import TrainedModel, train_once
from aft.training.settings import Objective, TrainingSettings


def pretrain_pocket(
    corpus: pocket.Corpus,
    model: architecture.Architecture,
    settings: TrainingSettings,
    workspace: Path,
) -> TrainedModel:
    """The pocket base model: every token of the corpus is learned, questions included.

    Trained once per corpus and settings.
    """
    tokenizer = architecture.build_tokenizer()
    texts = [prompt + solution for prompt, solution in pocket.corpus(corpus)]
    description = {
        "kind": "pocket base model",
        "corpus": asdict(corpus),
        "architecture": asdict(model),
        "training": deciding(settings),
        "texts": digest(texts),
        "vocabulary": digest(tokenizer.get_vocab()),
    }

    def examples() -> list[Example]:
        encoded: list[list[int]] = tokenizer(texts)["input_ids"]  # type: ignore[assignment]
        end = end_token(tokenizer)
        return [Example(f"pocket/corpus/{i:06d}", ids[:1], [[*ids[1:], end]]) for i, ids in enumerate(encoded)]

    return train_once(
        description,
        lambda: (architecture.build_model(model, len(tokenizer)), tokenizer),
        examples,
        Job((), settings, Objective(), corpus.seed, "pretrain base model"),
        workspace,
    )
