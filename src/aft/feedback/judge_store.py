"""The ratings of a judge on disk: one sealed line of JSON for each finished rating, appended and synced at once.

A line that `kill -9` tore, or that is damaged, is passed over and removed when the file is opened; its rating is
missing and is asked for again.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from aft.files import write_atomically, writing
from aft.sealed import with_seal, without_seal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the judge said, the n-th time that it rated a candidate."""

    candidate: str  # hash of question, reference and response
    number: int  # which of the candidate's ratings, from 0
    rating: float | None = None  # 1 to 10; None: malformed
    attempts: int = 0  # how often it was asked
    text: str = ""  # the whole of the last answer, with its evidence

    def is_finished(self, attempts: int) -> bool:
        """Whether nothing is left to ask: there is a rating, or the judge was asked so often."""
        return self.rating is not None or self.attempts >= attempts


def open_answers(path: Path) -> dict[tuple[str, int], Answer]:
    """The answers of the store at `path` by candidate and number; the last of equal ones counts.

    A torn or damaged file is mended, and a missing one made.
    """
    content = path.read_bytes() if path.is_file() else b""
    lines = content.splitlines(keepends=True)
    answers = [_read(line) for line in lines]
    kept = b"".join(line for line, answer in zip(lines, answers, strict=True) if answer is not None)
    if kept != content:
        logger.warning("%d lines of %s are torn or damaged; they are asked for again.", answers.count(None), path)
    if kept != content or not path.is_file():
        write_atomically(path, lambda staged: staged.write_bytes(kept))
    return {(answer.candidate, answer.number): answer for answer in answers if answer is not None}


def append(path: Path, answer: Answer) -> None:
    """Add an answer to the store so that it outlives the process and the machine; `StoreError` if the disk is full."""
    with writing(path), path.open("ab") as file:
        file.write(json.dumps(with_seal(asdict(answer))).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _read(line: bytes) -> Answer | None:
    """The answer that a line holds; None unless it is as it was written and all its values are possible."""
    try:
        answer = Answer(**(without_seal(json.loads(line)) or {}))
    except (ValueError, TypeError, RecursionError):
        return None
    numbers = type(answer.number) is type(answer.attempts) is int
    rated = answer.rating is None or (type(answer.rating) in (int, float) and 1 <= answer.rating <= 10)
    texts = isinstance(answer.candidate, str) and isinstance(answer.text, str)
    return answer if line.endswith(b"\n") and numbers and rated and texts else None
