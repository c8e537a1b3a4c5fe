"""A group: the responses of one question that are scored together, since they share its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from aft.errors import DataError


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and the responses that are scored after it, all as token ids."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if not len(self.prompt) or not all(map(len, self.responses)):
            raise DataError("A prompt or a response without tokens has no score.")

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
