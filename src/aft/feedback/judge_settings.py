"""What can be set about a judge; importing this costs nothing."""

import math
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from aft.errors import SettingsError


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Who rates, and how it is asked."""

    base_url: str  # of the server, as in "http://localhost:8000/v1"
    model: str  # the name under which the server knows the judge
    api_key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key; unset where none is needed
    ratings: int = 3  # sampled for each candidate and averaged
    temperature: float = 1.0  # of the judge's softmax
    max_tokens: int = 512  # an answer that has not ended by then is malformed
    concurrency: int = 8  # requests under way at a time
    retries: int = 5  # how often a request that failed is sent again, waiting longer each time
    attempts: int = 3  # how often it is asked for one rating while its answers are malformed
    timeout_s: float = 60.0  # how long the server may be silent, in seconds
    price_per_million_prompt_tokens: float | None = None  # in any currency; None: unknown
    price_per_million_completion_tokens: float | None = None  # in the same currency

    def __post_init__(self) -> None:
        if not _is_plain_url(self.base_url):  # not repeated in the message: it may hold a password
            raise SettingsError(
                "base_url must be an http or https address such as http://localhost:8000/v1, without user, password, "
                "query or fragment; the key comes from the environment variable that api_key_env names."
            )
        if not self.model:
            raise SettingsError("model must name a model that the server at base_url serves.")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):  # nor here: it may be the key itself
            raise SettingsError("api_key_env must be the name of an environment variable, not the key.")
        if min(self.ratings, self.max_tokens, self.concurrency, self.attempts) < 1:
            raise SettingsError("ratings, max_tokens, concurrency and attempts must be at least 1.")
        if self.retries < 0:
            raise SettingsError("retries must be at least 0.")
        if not 0 <= self.temperature < math.inf:
            raise SettingsError("temperature must be a number of at least 0.")
        if not 0 < self.timeout_s < math.inf:
            raise SettingsError("timeout_s must be a number of seconds above 0.")
        if not all(price is None or 0 <= price < math.inf for price in self.prices):
            raise SettingsError("Prices must be numbers of at least 0, or null where they are unknown.")

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """Price of a million tokens of prompts and of answers."""
        return self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens


def _is_plain_url(text: str) -> bool:
    """Whether an address is one of a web server and holds nothing secret."""
    try:
        url = urlsplit(text)
        secret = url.username is not None or url.password is not None or "?" in text or "#" in text
        named = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False
    return named and not secret and text.isprintable() and " " not in text
