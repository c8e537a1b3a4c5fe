"""What can be set about a judge; importing this costs nothing."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from aft.errors import SettingsError
from aft.server import Connection, check_number, check_whole

TokenLimit = Literal["max_tokens", "max_completion_tokens"]


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
    token_limit: TokenLimit = "max_tokens"  # under which name it is sent: newer models of OpenAI's want the other
    attempts: int = 3  # how often it is asked for one rating while its answers are malformed
    price_per_million_prompt_tokens: float | None = None  # in any currency; None: unknown
    price_per_million_completion_tokens: float | None = None  # in the same currency

    def __post_init__(self) -> None:
        Connection.__post_init__(self)
        for name, most in (("ratings", 1000), ("max_tokens", 1_000_000), ("attempts", 1000)):
            check_whole(name, getattr(self, name), 1, most)
        check_number("temperature", self.temperature, 0, 1000)
        if self.token_limit not in get_args(TokenLimit):
            raise SettingsError(f"token_limit must be {' or '.join(get_args(TokenLimit))}.")
        for price in self.prices:
            if price is not None:
                check_number("Prices, or null where they are unknown, each", price, 0, 1_000_000)

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """Price of a million tokens of prompts and of answers."""
        return self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens
