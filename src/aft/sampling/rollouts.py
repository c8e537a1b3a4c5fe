"""Responses that were drawn elsewhere, joined to the training questions, in the store as if they had been sampled."""

import logging
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aft.errors import DataError
from aft.files import digest, hash_file
from aft.models.directory import ModelDirectory
from aft.models.tokens import decode_response, encode_question, encode_response, end_token, known_tokens
from aft.sampling.rollout_files import Rollout, read_rollouts, rollout_files
from aft.sampling.room import named
from aft.sampling.run import COLUMNS
from aft.sampling.settings import ROOMS
from aft.shards import ShardStore, encode
from aft.tasks import Question, content_hash, get_task
from aft.tasks.base import hashes_of
from aft.tasks.multiple_choice import with_options, without_options

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"  # as the fingerprint of a model that nobody named
_COLUMNS = {**COLUMNS, "given_label": "boolean", "given_rating": "float64"}


def import_responses(
    source: ModelDirectory,
    path: Path,
    questions: Sequence[Question],
    held_out: Collection[str],
    root: Path,
    block_size: int,
) -> list[Path]:
    """Shards with the responses in a file or folder to the questions, in the questions' order, as `sample_responses`
    writes them; a question's sample indices count its responses in the order of files and rows. `held_out` are content
    hashes of validation and test questions.

    Beside the columns of samples there are `given_label` (null = none) and `given_rating` (NaN = none); `sum_logprob`
    is NaN where none is given, and `model_fingerprint` the name of the model that drew the response. Token ids that do
    not spell the response in the tokenizer of `source` are made anew from the text, and counted in the log.

    Raises what `read_rollouts` and `by_question` raise.
    """
    tokenizer, ends = source.tokenizer(), source.end_tokens()
    joined = by_question(read_rollouts(path), questions, held_out, tokenizer, path)
    files = {file.name: hash_file(file) for file in rollout_files(path)}
    description = {"kind": "own rollouts", "model": source.fingerprint, "files": files}
    store = ShardStore(root, description, *ROOMS)
    ids = [question.question_id for question in questions if question.question_id in joined]
    blocks = [{key: joined[key] for key in ids[i : i + block_size]} for i in range(0, len(ids), block_size)]

    def make(missing: Sequence[int]) -> Generator[tuple[int, bytes], None, None]:
        for number in missing:
            yield number, encode(_table(blocks[number], tokenizer, ends, digest(description)))

    return store.fill([_block_hash(block) for block in blocks], make)


def by_question(
    rollouts: Iterable[Rollout],
    questions: Sequence[Question],
    held_out: Collection[str],
    tokenizer: "PreTrainedTokenizerBase",
    path: Path,
) -> dict[str, list[Rollout]]:
    """The responses of each question, by its id: joined by id, else by the text of the question or its prompt.

    Those to `held_out` questions, by content hash whatever their id, and those that match no question are left out and
    counted in the log, as those are whose id is known and whose text does not hold that question. Raises `DataError` if
    a row's id and text are of two questions, and if no row is left.
    """
    known = {question.question_id: _plain(question.question) for question in questions}
    asking: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        for text in (question.question, *_prompts(question, tokenizer)):
            asking[_hash(text)].add(question.question_id)
        asking[question.content_hash].add(question.question_id)
    frames = _frames(questions, tokenizer)
    joined: dict[str, list[Rollout]] = defaultdict(list)
    n_held_out, unmatched, forbidden = 0, list[str](), set(held_out)
    for rollout in rollouts:
        own, text = {rollout.question_id} & known.keys(), rollout.asked or ""
        asked = asking.get(_hash(text), set()) if text else set()
        if any(hashes_of(*without_options(one)) & forbidden for one in _unwrapped(text, frames)):
            n_held_out += 1
        elif own and asked and not own & asked:
            raise DataError(
                f"{rollout.where} has the id of {rollout.question_id} and asks {min(asked)}; mend one of the two."
            )
        elif own and text and not asked and known[str(rollout.question_id)] not in _plain(text):
            unmatched.append(rollout.question_id or "")  # the id names another question where it was drawn
        elif len(own or asked) == 1:
            joined[str(*(own or asked))].append(rollout)
        else:
            unmatched.append(rollout.question_id or text[:60])
    n_joined = sum(map(len, joined.values()))
    first = named([repr(one) for one in dict.fromkeys(unmatched)])
    if not n_joined:
        raise DataError(
            f"None of the {n_held_out + len(unmatched)} responses in {path} is to a training question: {n_held_out} "
            f"are to validation or test questions, {len(unmatched)} to others ({first or 'none'}); give question_id as "
            "in train_questions, or the question's own text."
        )
    logger.log(
        logging.WARNING if unmatched or n_held_out else logging.INFO,
        "%s: %d responses to %d of %d training questions; left out are %d to validation or test questions, and %d that "
        "match no question (%s).",
        *(path, n_joined, len(joined), len(questions), n_held_out, len(unmatched), first or "none"),
    )
    return dict(joined)


def _hash(text: str) -> str:
    """The content hash of the question that a text is, with its options as prompts have them."""
    return content_hash(*without_options(text))


def _plain(text: str) -> str:
    """Without case, and with single blanks."""
    return " ".join(text.casefold().split())


def _prompts(question: Question, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The task's prompt, and what the model reads of it, with and without special tokens, as engines write it."""
    prompt = get_task(question.dataset).prompt(question)
    ids = encode_question(tokenizer, question)
    return [prompt, *(str(tokenizer.decode(ids, skip_special_tokens=plain)) for plain in (False, True))]


def _frames(questions: Sequence[Question], tokenizer: "PreTrainedTokenizerBase") -> set[tuple[str, str]]:
    """What stands before and after a question and its options in its family's prompts; nothing is one of these."""
    families = {question.dataset: question for question in questions}
    cut = [
        text.partition(with_options(one.question, one.choices or ()))
        for one in families.values()
        for text in _prompts(one, tokenizer)
    ]
    return {("", ""), *((before, after) for before, found, after in cut if found)}


def _unwrapped(text: str, frames: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What may be the question, with its options, in a text, which may be a prompt."""
    for before, after in frames:
        if text.startswith(before) and text.endswith(after):
            yield text[len(before) : len(text) - len(after)]


def _block_hash(block: Mapping[str, Sequence[Rollout]]) -> str:
    """Hash of the responses of a block, wherever they stand."""
    return digest([[key, [{**asdict(one), "where": None} for one in rollouts]] for key, rollouts in block.items()])


def _table(
    block: Mapping[str, Sequence[Rollout]],
    tokenizer: "PreTrainedTokenizerBase",
    ends: frozenset[int],
    settings_hash: str,
) -> "pd.DataFrame":
    """The candidates table of one block."""
    import pandas as pd

    known, rows, foreign = known_tokens(tokenizer), [], 0
    for question_id, rollouts in block.items():
        for index, one in enumerate(rollouts):
            ids = _given_ids(one, tokenizer, known, ends)
            foreign += one.token_ids is not None and ids is None
            ids = ids or encode_response(tokenizer, one.response)[: None if one.is_finished else -1]
            rows.append(
                {
                    "question_id": question_id,
                    "sample_index": index,
                    "seed": -1,  # nobody knows how it was drawn
                    "response": one.response,
                    "token_ids": ids,
                    "finish_reason": "stop" if one.is_finished else "length",
                    "sum_logprob": one.sum_logprob,
                    "n_tokens": len(ids),
                    "model_fingerprint": one.source or UNKNOWN,
                    "settings_hash": settings_hash,
                    "given_label": one.label,
                    "given_rating": one.rating,
                }
            )
    if foreign:
        logger.warning("%d responses have token ids of another tokenizer; their text is tokenised.", foreign)
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)


def _given_ids(
    one: Rollout, tokenizer: "PreTrainedTokenizerBase", known: frozenset[int], ends: frozenset[int]
) -> list[int] | None:
    """The token ids that a response came with, ended if it is finished; None if there are none that spell it."""
    if one.token_ids is None or not known.issuperset(one.token_ids):
        return None
    *body, last = one.token_ids
    body, end = (body, last) if last in ends else ([*body, last], end_token(tokenizer))
    ids = [*body, end] if one.is_finished else body
    if not ids or not ends.isdisjoint(body):
        return None
    # Engines and tokenizers differ in whether the blank that a response begins with is part of its text.
    return ids if decode_response(tokenizer, ids, ends).strip() == one.response.strip() else None
