"""Which weights become the model: those of the epoch that answers the validation questions best (checkpoint selection).

An epoch ends after each pass over the examples, and where training ends. All that is decided follows from the curve,
which a checkpoint holds: a run that was killed selects what it would have selected. Early stopping is `patience`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aft.files import digest
from aft.models.tokens import decode_response, encode_question, end_tokens, known_tokens
from aft.tasks import Question, get_task, marking_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROOMS = ("feedback/label.py", "sampling", "tasks")  # whose code decides what is selected, beside that of training
ACCURACY = "validation_accuracy"  # the share of right answers, in the curve's row of an epoch's last step
COLUMNS = (ACCURACY, "validation_tokens", "validation_seconds")  # and what it costs
Curve = Sequence[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Exam:
    """The validation questions, which every epoch's weights answer greedily."""

    questions: list[Question]
    max_new_tokens: int  # a response that has not ended by then is cut
    batch_rows: int  # responses that are generated side by side, which does not decide them

    @property
    def decides(self) -> dict[str, Any]:
        """What the answers and their marks follow from, beside the weights and the code."""
        asked = [
            [one.question_id, one.dataset, get_task(one.dataset).prompt(one), one.answer] for one in self.questions
        ]
        own = marking_code(one.dataset for one in self.questions)
        return {
            "questions": digest(asked),
            "max_new_tokens": self.max_new_tokens,
            **({"own_tasks": own} if own else {}),
        }


def examine(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", exam: Exam) -> dict[str, float]:
    """`COLUMNS` under the present weights, which answer in their own precision; no random number is drawn."""
    import pandas as pd

    from aft.feedback.label import label_responses
    from aft.sampling.engine import Request, generate
    from aft.sampling.settings import SamplingSettings
    from aft.scoring.head import evaluating

    began, questions = time.perf_counter(), {one.question_id: one for one in exam.questions}
    settings = SamplingSettings(samples=0, greedy=True, max_new_tokens=exam.max_new_tokens, batch_rows=exam.batch_rows)
    requests = [Request(name, encode_question(tokenizer, one)) for name, one in questions.items()]
    ends = end_tokens(tokenizer, model.generation_config)
    with evaluating(model):
        answers = generate(model, requests, settings, 0, ends, known_tokens(tokenizer))
    rows = [
        (name, decode_response(tokenizer, response.token_ids, ends), response.finish_reason)
        for name, (response,) in zip(questions, answers, strict=True)
    ]
    labelled = label_responses(pd.DataFrame(rows, columns=["question_id", "response", "finish_reason"]), questions)
    tokens = sum(len(response.token_ids) for (response,) in answers)
    measured = (float(labelled["is_correct"].mean()), float(tokens), time.perf_counter() - began)
    return dict(zip(COLUMNS, measured, strict=True))


def best_epoch(curve: Curve) -> dict[str, float] | None:
    """The last row of the best epoch, the earlier one of equals; None if no epoch has been examined."""
    return max((row for row in curve if ACCURACY in row), key=lambda row: row[ACCURACY], default=None)


def is_over(curve: Curve, patience: int | None) -> bool:
    """Whether the last step was the end of an epoch, the `patience`-th in a row that is no better than one before."""
    best = best_epoch(curve)
    if best is None or patience is None or ACCURACY not in curve[-1]:
        return False
    return sum(ACCURACY in row for row in curve if row["step"] > best["step"]) >= patience


def told(curve: Curve) -> str:
    """What was selected and what it cost, in a sentence; empty if nothing was."""
    best, examined = best_epoch(curve), [row for row in curve if ACCURACY in row]
    if best is None:
        return ""
    tokens, seconds = (sum(row[name] for row in examined) for name in COLUMNS[1:])
    return (
        f"the weights after epoch {best['epoch']:.3g} of {curve[-1]['epoch']:.3g} become the model, which answer "
        f"{best[ACCURACY]:.1%} of the validation questions; {len(examined)} epochs were examined in {seconds:.1f} s, "
        f"with {tokens:.0f} tokens."
    )
