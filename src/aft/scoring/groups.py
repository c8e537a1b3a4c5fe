"""A group: the responses of one question that are scored together, since they share its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from aft.errors import DataError


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and the responses that are scored after it, all as token ids.

    Of each response, `unscored` says how many first tokens are read only: what is scored is the rest, given these.
    """

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    unscored: Sequence[int] = ()  # empty: all tokens of all responses are scored

    def __post_init__(self) -> None:
        if not len(self.prompt) or min(self.lengths, default=1) < 1:
            raise DataError("A prompt or a response without tokens has no score.")

    @property
    def parts(self) -> list[tuple[Sequence[int], int]]:
        """Each response, and how many of its tokens are read only."""
        return list(zip(self.responses, self.unscored or [0] * len(self.responses), strict=True))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response that are scored."""
        return [len(response) - first for response, first in self.parts]

    @property
    def cost(self) -> int:
        """Tokens that scoring reads when the prompt is shared and each distinct response counts once: P + sum of C."""
        return len(self.prompt) + sum(map(len, {tuple(response) for response in self.responses}))


def pack(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Numbers of consecutive items with a total cost of at most `budget` each; one that costs more stands alone."""
    packs: list[list[int]] = []
    room = 0
    for number, cost in enumerate(costs):
        if not packs or cost > room:
            packs.append([])
            room = budget
        packs[-1].append(number)
        room -= cost
    return packs
