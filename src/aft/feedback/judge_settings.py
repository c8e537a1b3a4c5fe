"""What can be set about a judge; importing this costs nothing."""

import math
from dataclasses import dataclass
from typing import ClassVar

from aft.errors import SettingsError
from aft.server import Connection


@dataclass(frozen=True, slots=True)
class JudgeSettings(Connection):
    """Who rates, and how it is asked."""

    HOW: ClassVar = (
        *("base_url", "api_key_env", "concurrency", "retries", "timeout_s"),
        *("price_per_million_prompt_tokens", "price_per_million_completion_tokens"),
    )

    ratings: int = 3  # sampled for each candidate and averaged
    temperature: float = 1.0  # of the judge's softmax
    max_tokens: int = 512  # an answer that has not ended by then is malformed
    attempts: int = 3  # how often it is asked for one rating while its answers are malformed
    price_per_million_prompt_tokens: float | None = None  # in any currency; None: unknown
    price_per_million_completion_tokens: float | None = None  # in the same currency

    def __post_init__(self) -> None:
        Connection.__post_init__(self)
        if min(self.ratings, self.max_tokens, self.attempts) < 1:
            raise SettingsError("ratings, max_tokens and attempts must be at least 1.")
        if not 0 <= self.temperature < math.inf:
            raise SettingsError("temperature must be a number of at least 0.")
        if not all(price is None or 0 <= price < math.inf for price in self.prices):
            raise SettingsError("Prices must be numbers of at least 0, or null where they are unknown.")

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """Price of a million tokens of prompts and of answers."""
        return self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens
