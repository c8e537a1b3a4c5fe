"""Training examples: a question, the responses to imitate and the group of responses to rank."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aft.errors import DataError
from aft.files import digest
from aft.models.tokens import encode_prompt, encode_response
from aft.scoring.groups import Group
from aft.tasks import Question, get_task
from aft.training.settings import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One unit of training, as token ids. An example without candidates is plain maximum likelihood."""

    question_id: str
    prompt: Sequence[int]
    targets: Sequence[Sequence[int]]  # responses to imitate (the VFT term), end-of-sequence token included
    candidates: Sequence[Sequence[int]] = field(default_factory=tuple)  # responses to rank
    ranks: Sequence[int] = field(default_factory=tuple)  # of the candidates, 0 = best
    reference_scores: Sequence[float] = field(default_factory=tuple)  # of the candidates under DPO's reference model

    @property
    def group(self) -> Group:
        """What is scored for this example: its targets, then its candidates."""
        return Group(self.prompt, [*self.targets, *self.candidates])


def refuse_held_out(questions: Iterable[Question], held_out: Iterable[str]) -> None:
    """Raise `DataError` if the content hash of any question is among those held out for validation and test."""
    forbidden = set(held_out)
    leaked = [question.question_id for question in questions if question.content_hash in forbidden]
    if leaked:
        raise DataError(
            f"{len(leaked)} training questions are also validation or test questions ({', '.join(leaked[:3])} ...); "
            "run ingest again and check the source's splits."
        )


def build_examples(
    questions: Sequence[Question],
    feedback: Iterable[Mapping[Any, Any]],
    tokenizer: "PreTrainedTokenizerBase",
    objective: Objective,
    max_tokens: int,
) -> list[Example]:
    """Examples of the questions, with their feedback rows joined by id; what is too long is left out and counted.

    A question whose candidates all rank alike keeps its reference only. For `dpo` each feedback row must hold its
    `reference_score`. Under `learn_positives` (RFT) every distinct correct sample becomes an example of its own beside
    the reference. Raises `DataError` for feedback on an unknown question, for empty feedback where the objective needs
    some, and if no example is left.
    """
    groups: dict[str, list[Mapping[Any, Any]]] = {question.question_id: [] for question in questions}
    for row in feedback:
        if row["question_id"] not in groups:
            raise DataError(f"The feedback names {row['question_id']}, which is no training question; label again.")
        groups[row["question_id"]].append(row)
    needs_feedback = objective.term != "none" or objective.learn_positives
    if needs_feedback and not any(groups.values()):
        raise DataError("The feedback is empty: no response was sampled or kept; run sample_cots and label_and_rank.")

    examples: list[Example] = []
    too_long = 0
    for question in questions:
        prompt = encode_prompt(tokenizer, get_task(question.dataset).prompt(question))
        reference = encode_response(tokenizer, question.reference)
        rows = [row for row in groups[question.question_id] if len(prompt) + len(row["token_ids"]) <= max_tokens]
        too_long += len(groups[question.question_id]) - len(rows)
        if len(prompt) + len(reference) > max_tokens:
            too_long += 1
            continue
        examples += _examples_of(question.question_id, prompt, reference, rows, objective)
    if too_long:
        logger.warning("%d references and samples are longer than max_tokens=%d and left out.", too_long, max_tokens)
    if not examples:
        raise DataError(f"No training example is left: every reference is longer than max_tokens={max_tokens}.")
    return examples


def _examples_of(
    question_id: str,
    prompt: list[int],
    reference: list[int],
    rows: list[Mapping[Any, Any]],
    objective: Objective,
) -> list[Example]:
    samples = [list(map(int, row["token_ids"])) for row in rows]  # plain integers, whichever array they come in
    are_correct = [bool(row["is_correct"]) for row in rows]
    if objective.learn_positives:
        end = reference[-1]  # a sample that was cut would teach not to end
        positives = [s for s, is_correct in zip(samples, are_correct, strict=True) if is_correct and s[-1] == end]
        kept = {tuple(target) for target in (reference, *positives)}
        return [Example(question_id, prompt, [list(target)]) for target in sorted(kept)]
    if objective.term == "none":
        return [Example(question_id, prompt, [reference])]
    ranks = [int(row["rank"]) for row in rows]
    if objective.reference_as_positive and reference not in samples:
        below = 0 if any(are_correct) else 1  # without a right sample, rank 0 is the wrong ones'
        samples, ranks = [*samples, reference], [*(rank + below for rank in ranks), 0]
    if len(set(ranks)) < 2:  # nothing to compare: the alignment term is 0 whatever their scores
        return [Example(question_id, prompt, [reference])]
    reference_scores = [float(row["reference_score"]) for row in rows] if objective.term == "dpo" else []
    return [Example(question_id, prompt, [reference], samples, ranks, reference_scores)]


def fingerprint(examples: Sequence[Example]) -> str:
    """Hash of all that a training run reads; the same examples in the same order have the same one."""
    return digest(
        [[e.question_id, list(e.prompt), e.targets, e.candidates, list(e.ranks), e.reference_scores] for e in examples]
    )
