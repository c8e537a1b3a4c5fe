"""What can be set about sampling; importing this costs nothing."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from aft.bounds import Bounds, check_bounds, counted
from aft.errors import SettingsError
from aft.server import Connection

Engine = Literal["local", "server"]
Precision = Literal["float32", "bfloat16"]
_MOST = 1_000_000  # of anything that is counted: far beyond all use, and within what a machine can count


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How responses are drawn from a model; those of `HOW` do not count for what they are, see `aft.code.deciding`."""

    HOW: ClassVar = ("block_size", "batch_rows")

    samples: int  # chains of thought per question (k)
    temperature: float = 1.0  # of the softmax, at most 1000; greedy responses do not use it
    top_k: int | None = None  # draw among so many most probable tokens only; None: among all
    top_p: float | None = None  # draw among the fewest most probable tokens that have this probability; None or 1: all
    greedy: bool = False  # one more response per question, the most probable token each time, sample index -1
    max_new_tokens: int = 256  # a response that has not ended by then is cut, and says so
    block_size: int = 64  # questions per shard of the store: what a killed run loses at most
    batch_rows: int = 512  # responses that are generated side by side
    precision: Precision = "float32"  # of the weights while sampling

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise SettingsError("temperature must be a number above 0; for the most probable response use greedy.")
        bounds = {
            **{"samples": counted(0 if self.greedy else 1, _MOST), "temperature": Bounds(0, 1000, above=True)},
            **{"top_k": counted(1, _MOST), "top_p": Bounds(0, 1, above=True)},
            **dict.fromkeys(("max_new_tokens", "block_size", "batch_rows"), counted(1, _MOST)),
        }
        check_bounds(self, bounds, optional=("top_k", "top_p"))
        if self.precision not in get_args(Precision):
            raise SettingsError(f"precision must be {' or '.join(get_args(Precision))}.")


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
        bounds = {
            "workers": counted(1, 100_000),
            "cpus_per_worker": counted(1, 10_000),
            "gpus_per_worker": Bounds(0, 1000),
        }
        check_bounds(self, bounds, "sampler.cluster.")
        if 0 < self.gpus_per_worker < 0.0001 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise SettingsError(
                "sampler.cluster.gpus_per_worker must be a whole number, or a share of one GPU of at least 0.0001."
            )
        if self.address is not None and not (isinstance(self.address, str) and self.address):
            raise SettingsError("sampler.cluster.address must be auto, an address such as ray://host:10001, or null.")


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Who draws responses, and where; apart from `SamplingSettings`, of which the samples in a store are made."""

    HOW: ClassVar = ("cluster",)

    engine: Engine = "local"  # server = the model at `server`, which serves the same weights
    server: ServerSettings | None = None  # for the engine server
    cluster: ClusterSettings | None = None  # null = in this process

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise SettingsError(f"sampler.engine must be {' or '.join(get_args(Engine))}.")
        if self.engine == "server" and self.server is None:
            raise SettingsError("sampler.engine is 'server': set sampler.server.base_url and model.")
        if self.engine == "local" and self.server is not None:
            raise SettingsError("sampler.server is set: set sampler.engine to server, too, or leave it out.")
