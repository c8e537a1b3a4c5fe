"""What can be set about sampling; importing this costs nothing."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from aft.errors import SettingsError
from aft.server import Connection


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How responses are drawn from a model; those of `HOW` do not count for what they are, see `aft.code.deciding`."""

    HOW: ClassVar = ("block_size", "batch_rows")

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


@dataclass(frozen=True, slots=True)
class ServerSettings(Connection):
    """The OpenAI-compatible server that serves the model to be sampled from."""

    HOW: ClassVar = ("base_url", "api_key_env", "concurrency", "retries", "timeout_s")

    concurrency: int = 64  # responses under way at a time, for each worker
    timeout_s: float = 300.0  # how long the server may be silent, in seconds: a response comes as a whole


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The Ray cluster whose workers draw the responses."""

    workers: int  # each has the model once; blocks of questions are shared out among them
    address: str | None = None  # null = a Ray of this machine's own; auto or ray://host:port = one that is running
    gpus_per_worker: float = 0  # 1 = a whole one for each; below 1 = several workers share one
    cpus_per_worker: int = 1  # threads for each

    def __post_init__(self) -> None:
        if min(self.workers, self.cpus_per_worker) < 1:
            raise SettingsError("sampler.cluster: workers and cpus_per_worker must be at least 1.")
        if not 0 <= self.gpus_per_worker < math.inf:
            raise SettingsError("sampler.cluster: gpus_per_worker must be a number of at least 0.")


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Who draws responses, and where; apart from `SamplingSettings`, of which the samples in a store are made."""

    HOW: ClassVar = ("cluster",)

    engine: Literal["local", "server"] = "local"  # server = the model at `server`, which serves the same weights
    server: ServerSettings | None = None  # for the engine server
    cluster: ClusterSettings | None = None  # null = in this process

    def __post_init__(self) -> None:
        if self.engine == "server" and self.server is None:
            raise SettingsError("sampler.engine is 'server': set sampler.server.base_url and model.")
        if self.engine == "local" and self.server is not None:
            raise SettingsError("sampler.server is set: set sampler.engine to server, too, or leave it out.")
