"""The feedback as rows that other trainers read: those that our own training learns from, in the shapes of TRL.

- `trl_pairs` (`prompt`, `chosen`, `rejected`): every strict pair of a question, a right response before a wrong one,
  as the terms of pairs compare them; for DPO and the like
- `trl_unpaired` (`prompt`, `completion`, `label`): every response and whether it is right, as the terms of single
  responses read them; for KTO
- `sft` (`prompt`, `completion`): what RFT imitates, the reference and every distinct right response that ended
- `ranked` (`question_id`, `prompt`, `responses`, `ranks`, `rewards`): the responses of each question that has two ranks
  or more; 0 = best, equal ranks are not compared; reward 1 = right. By ratings, or if there is none by right and wrong

`trl_unpaired` and `ranked` say of each response why it ended (`finish_reason`), so that `candidates_from` reads them
back; `length` = it was cut, and a trainer that ends every completion with an end token teaches it to end there.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from aft.errors import DataError
from aft.models.chat import prompt_style
from aft.models.tokens import decode_response, end_token, messages_of, render_question
from aft.tasks import Question
from aft.training.examples import Example, build_examples
from aft.training.settings import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHAPES = ("trl_pairs", "trl_unpaired", "sft", "ranked")


def export_feedback(
    shape: str,
    questions: Sequence[Question],
    feedback: pd.DataFrame,
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int,
    ends: Collection[int] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one of `SHAPES`, in the order of the questions; they come from `build_examples`, as training's do.

    Prompt and responses are text, or, for a model in the prompt style "chat", lists of messages. Raises `DataError` if
    no row is left, and what `build_examples` raises. `ends` are those of `build_examples`.
    """
    by_rating = shape == "ranked" and bool(feedback["rating_rank"].notna().any())
    # Of the terms, this one reads every response with its reward, also of questions with right or wrong ones only.
    objective = Objective(term="redi", feedback="ranking" if by_rating else "binary")
    if shape == "sft":
        objective = Objective(learn_positives=True)
    examples = build_examples(questions, feedback.to_dict("records"), tokenizer, objective, max_tokens, ends)
    texts, asked = _Texts(tokenizer, ends), {question.question_id: question for question in questions}
    rows = [row for one in examples for row in _ROWS[shape](one, texts.prompt(asked[one.question_id]), texts)]
    if not rows:
        raise DataError(
            f"There is nothing to export as {shape}: no question has responses that it could hold; sample more."
        )
    return rows


class _Texts:
    """Prompts and responses as the model's tokenizer and prompt style say them."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: Collection[int] | None) -> None:
        self.tokenizer, self.ends = tokenizer, {end_token(tokenizer)} if ends is None else ends
        self.chat = prompt_style(tokenizer) == "chat"

    def prompt(self, question: Question) -> Any:
        return messages_of(self.tokenizer, question) if self.chat else render_question(self.tokenizer, question)

    def response(self, ids: Sequence[int]) -> Any:
        text = decode_response(self.tokenizer, ids, self.ends)
        return [{"role": "assistant", "content": text}] if self.chat else text

    def finish_reason(self, ids: Sequence[int]) -> str:
        return "stop" if ids[-1] in self.ends else "length"


_Rows = list[dict[str, Any]]


def _pairs(one: Example, prompt: Any, texts: _Texts) -> _Rows:
    ranked = list(zip(one.candidates, one.ranks, strict=True))
    return [
        {"prompt": prompt, "chosen": texts.response(chosen), "rejected": texts.response(rejected)}
        for (chosen, better), (rejected, worse) in product(ranked, ranked)
        if better < worse
    ]


def _unpaired(one: Example, prompt: Any, texts: _Texts) -> _Rows:
    return [
        {
            **{"prompt": prompt, "completion": texts.response(ids), "label": reward > 0.5},
            "finish_reason": texts.finish_reason(ids),
        }
        for ids, reward in zip(one.candidates, one.rewards, strict=True)
    ]


def _imitated(one: Example, prompt: Any, texts: _Texts) -> _Rows:
    return [{"prompt": prompt, "completion": texts.response(target)} for target in one.targets]


def _ranked(one: Example, prompt: Any, texts: _Texts) -> _Rows:
    row = {
        **{"question_id": one.question_id, "prompt": prompt, "responses": [*map(texts.response, one.candidates)]},
        **{"ranks": [*one.ranks], "rewards": [*one.rewards]},
        "finish_reasons": [*map(texts.finish_reason, one.candidates)],
    }
    return [row] if len(set(one.ranks)) > 1 else []


_ROWS: Mapping[str, Any] = {"trl_pairs": _pairs, "trl_unpaired": _unpaired, "sft": _imitated, "ranked": _ranked}
