"""Training examples: a question, the responses to imitate (SFT) and the group of responses to rank."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aft.errors import DataError, SettingsError
from aft.files import ListDigest
from aft.models.chat import Turn
from aft.models.tokens import encode_question, encode_response, end_token, unscored_tokens
from aft.scoring.groups import Group
from aft.tasks import Question
from aft.tasks.base import hashes_of, identities
from aft.tasks.multiple_choice import without_options
from aft.training.settings import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Row = Mapping[Any, Any]  # of a feedback table
Block = tuple[Sequence[Question], Iterable[Row]]  # some questions, and the feedback on them


@dataclass(frozen=True, slots=True)
class Example:
    """One unit of training, as token ids. An example without candidates is plain maximum likelihood."""

    question_id: str
    prompt: Sequence[int]
    targets: Sequence[Sequence[int]]  # responses to imitate (the VFT term), end-of-sequence token included
    candidates: Sequence[Sequence[int]] = field(default_factory=tuple)  # responses to rank
    ranks: Sequence[int] = field(default_factory=tuple)  # of the candidates, 0 = best
    # Of the candidates, where the objective reads them:
    reference_scores: Sequence[float] = field(default_factory=tuple)  # under the reference model
    ratings: Sequence[float] = field(default_factory=tuple)
    rewards: Sequence[float] = field(default_factory=tuple)  # 1 = right, 0 = wrong
    behaviour_scores: Sequence[float] = field(default_factory=tuple)  # under the model that sampled
    # Of the targets, then the candidates: first tokens that are read only, neither imitated nor scored; () = none.
    unscored: Sequence[int] = field(default_factory=tuple)

    @property
    def group(self) -> Group:
        """What is scored for this example: its targets, then its candidates."""
        return Group(self.prompt, [*self.targets, *self.candidates], self.unscored)

    @property
    def target_lengths(self) -> list[int]:
        """Tokens of the targets that are imitated."""
        return self.group.lengths[: len(self.targets)]

    @property
    def lengths(self) -> list[int]:
        """Tokens of the candidates that are scored."""
        return self.group.lengths[len(self.targets) :]


def refuse_held_out(questions: Iterable[Question], held_out: Iterable[str], shown: Iterable[Turn] = ()) -> None:
    """Raise `DataError` if any question is known by a hash that is held out for validation and test (`identities`).

    `shown` are the examples in chat prompts, which count as questions.
    """
    forbidden = set(held_out)
    copied = [turn.question for turn in shown if hashes_of(*without_options(turn.question)) & forbidden]
    if copied:
        raise DataError(
            f"{len(copied)} of base_model.chat.examples ask validation or test questions ({copied[0]!r:.80}); show "
            "training questions, or questions of your own."
        )
    leaked = [question.question_id for question in questions if identities(question) & forbidden]
    if leaked:
        raise DataError(
            f"{len(leaked)} training questions are also validation or test questions ({', '.join(leaked[:3])} ...); "
            "run ingest again and check the source's splits."
        )


def build_examples(
    questions: Sequence[Question],
    feedback: Iterable[Row],
    tokenizer: "PreTrainedTokenizerBase",
    objective: Objective,
    max_tokens: int,
    ends: Collection[int] | None = None,
) -> list[Example]:
    """The examples of a few questions and the feedback on them; see `examples_of`."""
    return list(examples_of([(questions, feedback)], tokenizer, objective, max_tokens, ends))


def examples_of(
    blocks: Iterable[Block],
    tokenizer: "PreTrainedTokenizerBase",
    objective: Objective,
    max_tokens: int,
    ends: Collection[int] | None = None,
) -> Iterator[Example]:
    """Examples of questions, with their feedback rows joined by id; what is too long is left out and counted.

    A question whose candidates have nothing to tell apart (`Term.contrast`), or under ranking feedback lack a rating,
    keeps its targets only. A term that needs reference scores reads each row's `reference_score`, one that needs
    behaviour scores its `sum_logprob`. Under `learn_positives` (RFT) every distinct correct sample becomes an example
    of its own beside the reference; under `imitate: positives` one more target of its question. A question without a
    reference has its distinct correct samples for targets; if there are none, it is left out and counted. Raises
    `DataError` for feedback on an unknown question, for feedback that is empty or without any rating or score where the
    objective needs it, and if no example is left, `SettingsError` for behaviour scores where thoughts are not to be
    learnt. `ends` are the tokens that end a response, None for the tokenizer's alone.
    """
    ends, counts = {end_token(tokenizer)} if ends is None else ends, Counter[str]()
    for questions, feedback in blocks:
        groups = _by_question(questions, feedback, objective, counts)
        for question in questions:
            prompt = encode_question(tokenizer, question)
            references = [encode_response(tokenizer, question.reference)] if question.reference else []
            rows = [row for row in groups[question.question_id] if len(prompt) + len(row["token_ids"]) <= max_tokens]
            counts["too long"] += len(groups[question.question_id]) - len(rows)
            positives = _positives(references, rows, objective, ends)
            if any(len(prompt) + len(reference) > max_tokens for reference in references):
                counts["too long"] += 1
                counts["with a reference that is too long"] += len(rows)
                continue
            if not references and not positives:
                counts["untold"] += 1
                continue
            counts["told"] += 1
            if objective.learn_positives:
                made = [Example(question.question_id, prompt, [target]) for target in positives]
            else:
                made = [_ranked_example(question, prompt, references, positives, rows, objective, ends)]
            yield from (_with_unscored(tokenizer, example, objective) for example in made)
    _tell(counts, objective, max_tokens)


def _tell(counts: Mapping[str, int], objective: Objective, max_tokens: int) -> None:
    """Log what was left out of the examples; raises `DataError` if that is too much."""
    if counts["unrated"]:
        logger.warning("%d samples of questions with an unrated sample are left out of the ranking.", counts["unrated"])
    if (objective.term != "none" or objective.learn_positives) and not counts["rows"]:
        if counts["unrated"]:
            raise DataError("No sample has a rating: set labelling.judge and run label_and_rank.")
        raise DataError("The feedback is empty: no response was sampled or kept; run sample_cots and label_and_rank.")
    if counts["too long"]:
        beside = counts["with a reference that is too long"]
        logger.warning(
            "%d references and samples are longer than max_tokens=%d and left out%s.",
            *(
                counts["too long"],
                max_tokens,
                f", and {beside} samples with their question's reference" if beside else "",
            ),
        )
    if counts["untold"]:
        logger.warning("%d questions have neither a reference nor a right sample, and are left out.", counts["untold"])
    if not counts["told"] and counts["untold"]:
        raise DataError(
            "No training example is left: no question has a reference or a right sample; draw more samples "
            "(sampling.samples), or take a stronger base model or an easier task."
        )
    if not counts["told"]:
        raise DataError(f"No training example is left: every reference is longer than max_tokens={max_tokens}.")


def _with_unscored(tokenizer: "PreTrainedTokenizerBase", example: Example, objective: Objective) -> Example:
    """The example, told which tokens are read only."""
    unscored = [unscored_tokens(tokenizer, response) for response in example.group.responses]
    if not any(unscored):
        return example
    if example.behaviour_scores:
        raise SettingsError(
            f"The term {objective.term} reads the log-probabilities of whole samples, thoughts included: set "
            "base_model.chat.learn_thoughts to true, or choose another term."
        )
    return replace(example, unscored=unscored)


class Overview:
    """What is told of examples that pass by, which need not be in memory: counts and a fingerprint."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.examples = self.questions = 0
        self.has_candidates = False
        self._hash, self._last = ListDigest(), ""
        for _ in self.passing(examples):
            pass

    def passing(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples, each counted as it comes; those of a question come together."""
        for e in examples:
            self.examples += 1
            self.questions += e.question_id != self._last
            self.has_candidates |= len(e.candidates) > 0
            self._last = e.question_id
            self._hash.add(
                [
                    *(e.question_id, list(e.prompt), e.targets, e.candidates, list(e.ranks), e.ratings),
                    *(e.reference_scores, e.rewards, e.behaviour_scores),
                    *([list(e.unscored)] if e.unscored else []),
                ]
            )
            yield e

    @property
    def fingerprint(self) -> str:
        """Hash of all that a training run reads; the same examples in the same order have the same one."""
        return self._hash.value()


def effective_objective(objective: Objective, examples: Overview, references: Callable[[], Overview]) -> Objective:
    """The objective that these examples leave: plain VFT, with a warning, if they hold nothing beyond the references.

    `references` tells of those of plain VFT on the same questions, none if these have no reference. Raises
    `DataError` if the loss would be 0 whatever the weights: nothing to rank, and no weight on what is imitated.
    """
    if objective.term != "none":
        extra = examples.has_candidates
        by_rating = objective.kind.contrast == "ranks" and objective.feedback == "ranking"
        lacking = "samples of different ratings" if by_rating else "right and wrong samples"
    else:
        more = examples.examples > examples.questions or examples.examples > references().examples
        extra = more or not objective.learn_positives
        lacking = "a right sample that differs from the reference"
    if extra:
        return objective
    why = f"0 of {examples.questions} questions have {lacking}"
    if objective.vft_weight == 0 or objective.vft_reduction == "pro":
        raise DataError(
            f"{objective.label} has nothing to learn from: {why}, and what is imitated has no weight without them; "
            "draw more samples (sampling.samples), or take a stronger base model or an easier task."
        )
    mean = objective.vft_reduction == "mean" and objective.imitate != "positives"  # over tokens, as VFT's
    alike = mean and (objective.start, objective.vft_weight) == ("base", 1)
    if alike and examples.fingerprint == references().fingerprint:
        logger.warning(
            "%s has nothing to learn from beyond the references (%s): its model is VFT's.", objective.label, why
        )
        return Objective()
    logger.warning("%s has nothing to rank (%s): it only imitates.", objective.label, why)
    return objective


def _by_question(
    questions: Sequence[Question], feedback: Iterable[Row], objective: Objective, counts: Counter[str]
) -> dict[str, list[Row]]:
    """The feedback rows of each question that the objective can read, counted."""
    groups: dict[str, list[Row]] = {question.question_id: [] for question in questions}
    ratings = ("rating_rank", "rating") if _reads_ratings(objective) else ("rating_rank",)
    for row in feedback:
        if row["question_id"] not in groups:
            raise DataError(
                f"The feedback names {row['question_id']}, which is no training question, or stands elsewhere among "
                "them now; sample and label again."
            )
        if objective.feedback == "ranking" and not all(_is_given(row[name]) for name in ratings):
            counts["unrated"] += 1
        else:
            counts["rows"] += 1
            groups[row["question_id"]].append(row)
    return groups


def _is_given(value: Any) -> bool:
    """Whether a field has a value: a missing one is None, NaN or <NA>, after the table and the column that it is of."""
    return not pd.isna(value)


def _reads_ratings(objective: Objective) -> bool:
    return objective.term == "pro" and objective.feedback == "ranking" and objective.dynamic_temperature


def _rank_of(row: Row, objective: Objective) -> int:
    return int(row["rating_rank"] if objective.feedback == "ranking" else row["rank"])


def _tokens_of(row: Row) -> list[int]:
    """Plain integers, whichever array they come in."""
    ids = row["token_ids"]
    return ids.tolist() if isinstance(ids, np.ndarray) and ids.dtype.kind == "i" else list(map(int, ids))


def _positives(
    references: list[list[int]], rows: list[Row], objective: Objective, ends: Collection[int]
) -> list[list[int]]:
    """The reference and every distinct right sample (rejection sampling); under ranking feedback the top-rated ones.

    A sample that was cut, with none of the `ends` last, would teach not to end, and is none of them.
    """
    positives = [row for row in rows if row["is_correct"] and _tokens_of(row)[-1] in ends]
    if objective.feedback == "ranking":
        positives = [row for row in positives if _rank_of(row, objective) == 0]
    if objective.distinct_equations:
        positives = [row for row in positives if row["distinct_equations"]]
    return list(map(list, sorted({tuple(target) for target in (*references, *map(_tokens_of, positives))})))


def _ranked_example(
    question: Question,
    prompt: list[int],
    references: list[list[int]],
    positives: list[list[int]],
    rows: list[Row],
    objective: Objective,
    ends: Collection[int],
) -> Example:
    samples, ranks = [_tokens_of(row) for row in rows], [_rank_of(row, objective) for row in rows]
    rewards = [float(row["is_correct"]) for row in rows]
    has_positive = objective.feedback == "ranking" or any(rewards)
    targets = references or positives
    ended = [(rank, number) for number, rank in enumerate(ranks) if samples[number][-1] in ends]
    if objective.imitate == "positives":
        targets = positives
    elif objective.imitate == "best" and ended and has_positive:
        targets = [samples[min(ended)[1]]]  # the first of the best that ended: a cut one would teach not to end
    if objective.reference_as_positive and references and references[0] not in samples:
        below = 0 if has_positive else 1  # without a right sample, rank 0 is the wrong ones'
        samples, ranks, rewards = [*samples, *references], [*(rank + below for rank in ranks), 0], [*rewards, 1.0]
    needs, contrast = objective.kind.needs, objective.kind.contrast
    if contrast and len(set(ranks if contrast == "ranks" else rewards)) < 2:  # the term is 0 whatever their scores
        return Example(question.question_id, prompt, targets)
    return Example(
        question.question_id,
        prompt,
        targets,
        samples,
        ranks,
        reference_scores=[_reference_score(row) for row in rows] if "reference_scores" in needs else [],
        ratings=[float(row["rating"]) for row in rows] if _reads_ratings(objective) else [],
        rewards=rewards if "rewards" in needs else [],
        behaviour_scores=[_behaviour_score(row, objective) for row in rows] if "behaviour_scores" in needs else [],
    )


def _reference_score(row: Row) -> float:
    if not _is_given(row["reference_score"]):
        raise DataError(f"A sample of {row['question_id']} has no score under the reference model; score them again.")
    return float(row["reference_score"])


def _behaviour_score(row: Row, objective: Objective) -> float:
    if not _is_given(row.get("sum_logprob")):
        raise DataError(
            f"A sample of {row['question_id']} has no log-probability under the model that it was sampled from, which "
            f"the term {objective.term} needs: sample with sample_cots, give sum_logprob with candidates_from, or "
            "choose another term."
        )
    return float(row["sum_logprob"]) / len(row["token_ids"])
