"""What can be set about a judge; importing this costs nothing."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from aft.bounds import Bounds, check_bounds, counted
from aft.errors import SettingsError
from aft.server import Connection

_PRICES = ("price_per_million_prompt_tokens", "price_per_million_completion_tokens")
TokenLimit = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class JudgeSettings(Connection):
    """Who rates, and how it is asked."""

    HOW: ClassVar = ("base_url", "api_key_env", "concurrency", "retries", "timeout_s", *_PRICES)

    ratings: int = 3  # sampled for each candidate and averaged
    temperature: float = 1.0  # of the judge's softmax
    max_tokens: int = 512  # an answer that has not ended by then is malformed
    token_limit: TokenLimit = "max_tokens"  # under which name it is sent: newer models of OpenAI's want the other
    attempts: int = 3  # how often it is asked for one rating while its answers are malformed
    price_per_million_prompt_tokens: float | None = None  # in any currency; None: unknown
    price_per_million_completion_tokens: float | None = None  # in the same currency

    def __post_init__(self) -> None:
        Connection.__post_init__(self)
        bounds = {
            **{"ratings": counted(1, 1000), "max_tokens": counted(1, 1_000_000), "attempts": counted(1, 1000)},
            **{"temperature": Bounds(0, 1000), **dict.fromkeys(_PRICES, Bounds(0, 1_000_000))},
        }
        check_bounds(self, bounds, optional=_PRICES)
        if self.token_limit not in get_args(TokenLimit):
            raise SettingsError(f"token_limit must be {' or '.join(get_args(TokenLimit))}.")

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """Price of a million tokens of prompts and of answers."""
        return self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens
