"""What can be set about sampling; importing this costs nothing."""

import math
from dataclasses import dataclass
from typing import Literal

from aft.errors import SettingsError


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How responses are drawn from a model."""

    samples: int  # chains of thought per question (k)
    temperature: float = 1.0  # of the softmax; greedy responses do not use it
    top_k: int | None = None  # draw among so many most probable tokens only; None: among all
    top_p: float | None = None  # draw among the fewest most probable tokens that have this probability; None or 1: all
    greedy: bool = False  # one more response per question, the most probable token each time, sample index -1
    max_new_tokens: int = 256  # a response that has not ended by then is cut, and says so
    block_size: int = 64  # questions per shard of the store: what a killed run loses at most
    batch_rows: int = 512  # responses that are generated side by side
    precision: Literal["float32", "bfloat16"] = "float32"  # of the weights while sampling

    def __post_init__(self) -> None:
        if self.samples < 0 or (self.samples == 0 and not self.greedy):
            raise SettingsError("samples must be at least 1, or 0 with greedy responses.")
        if not 0 < self.temperature < math.inf:
            raise SettingsError("temperature must be a number above 0; for the most probable response use greedy.")
        if self.top_k is not None and self.top_k < 1:
            raise SettingsError("top_k must be at least 1, or null to draw among all tokens.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingsError("top_p must be above 0 and at most 1, or null to draw among all tokens.")
        if min(self.max_new_tokens, self.block_size, self.batch_rows) < 1:
            raise SettingsError("max_new_tokens, block_size and batch_rows must be at least 1.")
