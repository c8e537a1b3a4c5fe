"""What a variant answered to the test questions, and how it scores responses that it did not write."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aft.errors import SettingsError
from aft.evaluation.assessment import assessment_accuracy, paper_assessment_accuracy, perplexity_of_positives
from aft.evaluation.statistics import maj_at_k, pass_at_k, wilson_interval
from aft.models.directory import ModelDirectory, on_device
from aft.models.tokens import encode_prompt
from aft.tasks import Question, get_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GREEDY = -1
PREDICTION_COLUMNS = ("question_id", "sample_index", "response", "extracted_answer", "is_correct", "score")
_ROWS = 256  # responses that are scored side by side, at most
_LOGITS = 2**26  # logits that are held at a time while scoring: 256 MiB in float32, and a few copies


def predictions(labelled: pd.DataFrame) -> pd.DataFrame:
    """`PREDICTION_COLUMNS` of labelled generations; the score is the mean token log-probability under the writer."""
    scores = labelled["sum_logprob"] / labelled["n_tokens"]
    return labelled.assign(score=scores)[list(PREDICTION_COLUMNS)].reset_index(drop=True)


def measure(rows: pd.DataFrame, scored_groups: pd.DataFrame, ks: list[int], level: float = 0.95) -> dict[str, float]:
    """All figures of one variant and seed: accuracy, maj@k, pass@k, assessment accuracy, perplexity of positives.

    `rows` are predictions, `scored_groups` the held-out groups with this variant's scores. Raises `SettingsError` if a
    k is larger than the number of samples.
    """
    greedy = rows[rows["sample_index"] == GREEDY]
    correct = int(greedy["is_correct"].sum())
    low, high = wilson_interval(correct, len(greedy), level)
    figures = {"accuracy": correct / len(greedy), "accuracy_low": low, "accuracy_high": high}
    figures["parse_failures"] = float(greedy["extracted_answer"].isna().mean())
    sampled = rows[rows["sample_index"] != GREEDY].groupby("question_id", sort=True)
    if ks and not sampled.ngroups:
        raise SettingsError("maj@k and pass@k need samples: set evaluation.sampling.samples to at least the largest k.")
    for k in ks:
        figures[f"maj_at_{k}"] = float(
            np.mean(
                [maj_at_k(group["extracted_answer"].tolist(), group["is_correct"].tolist(), k) for _, group in sampled]
            )
        )
        figures[f"pass_at_{k}"] = float(
            np.mean([pass_at_k(len(group), int(group["is_correct"].sum()), k) for _, group in sampled])
        )
    ours, papers = assessment_accuracy(scored_groups), paper_assessment_accuracy(scored_groups)
    figures["assessment_accuracy"] = ours.macro
    figures["assessment_accuracy_low"], figures["assessment_accuracy_high"] = ours.low, ours.high
    figures["assessment_accuracy_micro"] = ours.micro
    figures["assessment_questions"] = ours.n_questions
    figures["paper_assessment_accuracy"] = papers.accuracy
    figures["paper_assessment_questions"] = papers.n_questions
    figures["perplexity_of_positives"] = perplexity_of_positives(scored_groups)
    return figures


def score_groups(
    source: ModelDirectory,
    groups: pd.DataFrame,
    questions: Mapping[str, Question],
    label: str,
    precision: str = "float32",
) -> pd.DataFrame:
    """The groups with the `score` (Eq. 2) that `source`, loaded in `precision`, gives each response; rows as given."""
    import torch
    from tqdm import tqdm

    tokenizer = source.tokenizer()
    model = on_device(source.model(precision))
    prompts = {
        question_id: encode_prompt(tokenizer, get_task(questions[question_id].dataset).prompt(questions[question_id]))
        for question_id in groups["question_id"].unique()
    }
    rows = [(prompts[q], list(t)) for q, t in zip(groups["question_id"], groups["token_ids"], strict=True)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    scores = np.empty(len(rows))
    with torch.inference_mode(), tqdm(total=len(rows), desc=label, unit="response", mininterval=1) as bar:
        while order:  # the longest first: if they fit into memory, all do
            longest = sum(map(len, rows[order[-1]]))
            size = min(_ROWS, max(1, _LOGITS // (longest * model.config.vocab_size)))
            chosen, order = order[-size:], order[:-size]
            scores[chosen] = _scores(model, [rows[i] for i in chosen])
            bar.update(len(chosen))
    return groups.assign(score=scores)


def _scores(model: "PreTrainedModel", rows: list[tuple[list[int], list[int]]]) -> Any:
    from aft.scoring.naive import token_logprobs

    prompts, responses = zip(*rows, strict=True)
    return token_logprobs(model, prompts, responses).scores_R.double().cpu().numpy()
