"""Files of responses that were drawn elsewhere, in the shapes that trainers and inference engines write them in.

A row has one response (`prompt`, `completion`, `label`), two of a preference (`prompt`, `chosen`, `rejected`), or
several (`prompt`, `responses`, `scores`); prompt and response are text or lists of messages (`role`, `content`), and a
conversation alone (`messages`) holds both. `FIELDS` has the names that are read; others are not.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aft.errors import DataError
from aft.records import READERS, number_in, read_rows

FIELDS = {
    "question_id": ("question_id",),
    "asked": ("question", "prompt", "input", "messages"),  # the question, or a prompt that asks it
    "response": ("response", "completion", "output", "text", "messages"),
    "label": ("label", "is_correct", "labels"),  # whether it is right
    "reward": ("reward", "score", "rewards", "scores"),  # right if above one half
    "rating": ("rating", "ratings"),  # higher = better, on a scale of one's own
    "rank": ("rank", "ranks"),  # lower = better; a rating with the other sign
    "token_ids": ("token_ids",),
    "sum_logprob": ("sum_logprob", "cumulative_logprob", "sum_logprobs", "cumulative_logprobs"),  # in nats
    "finish_reason": ("finish_reason", "finish_reasons"),
    "source": ("source_model", "model"),  # that drew it
}
"""What is read of a row, and the names under which it may stand; the first that has a value counts."""
SEVERAL = ("responses", "completions", "outputs")
"""The names under which a row has several responses; whatever else it has for each is a list of the same length."""

_CUT = ("length", "max_tokens", "abort")  # reasons of a response that did not end by itself
_OF_ALL = {"question_id", "source_model", "model", *FIELDS["asked"]}  # of a row with several responses
_OF_EACH = {name for names in FIELDS.values() for name in names} - {*_OF_ALL, *FIELDS["response"]}
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response as its file has it."""

    where: str  # file and line, for errors
    question_id: str | None
    asked: str | None  # the question, or a prompt that asks it; one of the two is there
    response: str
    is_finished: bool  # False: it was cut at a limit
    label: bool | None  # right or wrong, as whoever drew it says
    rating: float | None
    token_ids: tuple[int, ...] | None
    sum_logprob: float | None  # under the model that drew it, in nats, <= 0
    source: str | None


def rollout_files(path: Path) -> list[Path]:
    """The file at `path`, or those in that folder that can be read, by name; raises `DataError` if there is none."""
    try:
        named = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [one for one in named if one.suffix in READERS and one.is_file()]
    except (OSError, ValueError):  # longer than a path may be, or not to be read
        files = []
    if not files:
        raise DataError(
            f"candidates_from is {str(path)!r:.80}, but must be a file that ends in {', '.join(READERS)}, or a folder "
            "with such files."
        )
    return files


def read_rollouts(path: Path) -> Iterator[Rollout]:
    """The responses in a file or folder, in the order of names and rows.

    Raises `DataError` for a file that cannot be read, and for the first row that lacks question or response or has
    something else under a name of `FIELDS`, with file and line.
    """
    for file in rollout_files(path):
        for where, (names, values) in read_rows(file):
            if len(names) != len(values) or len(set(names)) < len(names):
                raise DataError(f"{where} has more, fewer or twice the fields that are named; write it again.")
            row = dict(zip(names, values, strict=True))
            for one in _one_by_one(row, where):
                yield _rollout(one, where)


def _one_by_one(row: Mapping[str, Any], where: str) -> Iterator[Mapping[str, Any]]:
    """The row as one row for each of its responses."""
    if row.get("chosen") is not None and row.get("rejected") is not None:
        for name, label in (("chosen", True), ("rejected", False)):
            conversation = {"messages": row[name]} if isinstance(row[name], list) else {}
            yield {**conversation, **_only(row, _OF_ALL), "response": row[name], "label": label}
        return
    several = next((name for name in SEVERAL if row.get(name) is not None), None)
    if several is None:
        yield row
        return
    responses = row[several]
    lists = {name: value for name, value in _only(row, _OF_EACH).items() if value is not None}
    for name, value in {several: responses, **lists}.items():
        if not isinstance(value, list) or len(value) != len(responses):
            raise DataError(f"{where} has {name} that are no list with one for each of its {several}; write it again.")
    for number, response in enumerate(responses):
        of_one = {name: value[number] for name, value in lists.items()}
        own = response if isinstance(response, dict) and "role" not in response else {"response": response}
        yield {**_only(row, _OF_ALL), **of_one, **own}


def _only(row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name in names}


def _rollout(row: Mapping[str, Any], where: str) -> Rollout:
    def read(field: str, parse: Callable[[Any], _Value | None], what: str) -> _Value | None:
        name = next((name for name in FIELDS[field] if row.get(name) not in (None, "")), None)
        if name is None:
            return None
        value = parse(row[name])
        if value is None:
            raise DataError(
                f"{where} has the {name} {repr(row[name])[:40]}, which is no {what}; mend it or leave it out."
            )
        return value

    question_id = read("question_id", _id, "text or whole number")
    asked = read("asked", lambda value: _said(value, "user"), "text, or list of messages with a user's")
    response = read(
        "response", lambda value: _said(value, "assistant"), "text, or list of messages with an answer last"
    )
    reason = read("finish_reason", _text, "text")
    rank = read("rank", number_in, "finite number")
    label = read("label", _flag, "true or false")
    sum_logprob = read("sum_logprob", lambda value: _at_most_0(number_in(value)), "number of at most 0")
    if question_id is None and asked is None:
        raise DataError(f"{where} has no question; give its id (question_id) or text ({', '.join(FIELDS['asked'])}).")
    if response is None and not any(row.get(name) == "" for name in FIELDS["response"]):
        raise DataError(f"{where} has no response; give one under {', '.join((*FIELDS['response'], *SEVERAL))}.")
    if not response and reason in _CUT:
        raise DataError(f"{where} has an empty response that was cut; leave it out.")
    return Rollout(
        where,
        question_id,
        asked,
        response or "",
        is_finished=reason not in _CUT,
        label=read("reward", _flag, "number") if label is None else label,
        rating=read("rating", number_in, "finite number") if rank is None else -rank,
        token_ids=read("token_ids", _ids, "list of token ids"),
        sum_logprob=sum_logprob,
        source=read("source", _text, "text"),
    )


def _said(value: Any, role: str) -> str | None:
    """The text of a field: its own, or what `role` said in a conversation, as the last one of an answer."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return _text(value)
    messages = [one for one in value if isinstance(one, dict)]
    if role == "user":
        messages = [one for one in messages if one.get("role") == role]
    if not messages or messages[-1].get("role") != role:
        return None
    content = messages[-1].get("content")
    if isinstance(content, list):  # parts, as of a message with an image
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return _text(content)


def _text(value: Any) -> str | None:
    """Text that a table can hold: JSON can spell a lone surrogate."""
    return value if isinstance(value, str) and value.encode(errors="replace").decode() == value else None


def _id(value: Any) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _flag(value: Any) -> bool | None:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    number = float(value) if isinstance(value, bool) else number_in(value)
    return None if number is None else number > 0.5


def _at_most_0(number: float | None) -> float | None:
    return number if number is not None and number <= 0 else None


def _ids(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    return tuple(value) if all(isinstance(one, int) and one >= 0 for one in value) else None
