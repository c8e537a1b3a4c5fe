"""Settings of the judge."""

from typing import Annotated, Literal

from aft.bounds import Bounds, counted
from aft.checked import checked
from aft.code import How
from aft.server import Connection

TokenLimit = Literal["max_tokens", "max_completion_tokens"]
_FewTimes = Annotated[int, counted(most=1000)]
_Price = Annotated[float, Bounds(0, 1_000_000)]


@checked
class JudgeSettings(Connection):
    """Who rates, and how it is asked."""

    ratings: _FewTimes = 3  # sampled for each candidate and averaged
    temperature: Annotated[float, Bounds(0, 1000)] = 1.0  # of the judge's softmax
    max_tokens: Annotated[int, counted(most=1_000_000)] = 512  # an answer that has not ended by then is malformed
    token_limit: TokenLimit = "max_tokens"  # under which name it is sent: newer models of OpenAI's want the other
    attempts: _FewTimes = 3  # how often it is asked for one rating while its answers are malformed
    price_per_million_prompt_tokens: How[_Price | None] = None  # in any currency; None: unknown
    price_per_million_completion_tokens: How[_Price | None] = None  # in the same currency

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """Price of a million tokens of prompts and of answers."""
        return self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens
