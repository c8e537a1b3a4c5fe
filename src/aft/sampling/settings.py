"""Settings of sampling."""

from typing import Annotated, Literal

from aft.bounds import Bounds, Must, counted
from aft.checked import checked
from aft.code import How
from aft.errors import SettingsError
from aft.server import Concurrency, Connection, Timeout

ROOMS = ("models", "sampling", "scoring", "server.py")  # whose code decides a response
Engine = Literal["local", "server"]
Precision = Literal["float32", "bfloat16"]
_Count = Annotated[int, counted(most=1_000_000)]  # far beyond all use, and within what a machine can count
_Probability = Annotated[float, Bounds(0, 1, above=True)]
_Address = Annotated[str, Must(bool, "be auto, an address such as ray://host:10001, or null")]
_Workers = Annotated[int, counted(most=100_000)]
_Gpus = Annotated[float, Bounds(0, 1000)]
_Threads = Annotated[int, counted(most=10_000)]


@checked
class SamplingSettings:
    """How responses are drawn from a model."""

    samples: Annotated[int, counted(0, 1_000_000)]  # chains of thought per question (k)
    temperature: Annotated[float, Bounds(0, 1000)] = 1.0  # of the softmax, above 0; greedy responses do not use it
    top_k: _Count | None = None  # draw among so many most probable tokens only; None: among all
    top_p: _Probability | None = None  # draw among the fewest most probable tokens of this probability; 1 or None: all
    greedy: bool = False  # one more response per question, the most probable token each time, sample index -1
    max_new_tokens: _Count = 256  # a response that has not ended by then is cut, and says so
    block_size: How[_Count] = 64  # questions per shard of the store: what a killed run loses at most
    batch_rows: How[_Count] = 512  # responses that are generated side by side
    precision: Precision = "float32"  # of the weights while sampling

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise SettingsError("temperature must be a number above 0; for the most probable response use greedy.")
        if self.samples == 0 and not self.greedy:
            raise SettingsError("samples is 0: it must be at least 1, unless there are greedy responses.")


@checked
class ServerSettings(Connection):
    """The OpenAI-compatible server that serves the model to be sampled from."""

    concurrency: How[Concurrency] = 64  # responses under way at a time, for each worker
    timeout_s: How[Timeout] = 300.0  # how long the server may be silent, in seconds: a response comes as a whole


@checked
class ClusterSettings:
    """The Ray cluster whose workers draw the responses, and label those of the training questions."""

    workers: _Workers  # each has the model once; blocks of questions are shared out among them
    address: _Address | None = None  # null = a Ray of this machine's own; auto or ray://host:port = one that is running
    gpus_per_worker: _Gpus = 0  # 1 = a whole one for each; below 1 = several workers share one
    cpus_per_worker: _Threads = 1  # threads for each

    def __post_init__(self) -> None:
        if 0 < self.gpus_per_worker < 0.0001 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise SettingsError(
                "sampler.cluster.gpus_per_worker must be a whole number, or a share of one GPU of at least 0.0001."
            )


@checked
class SamplerSettings:
    """Who draws responses, and where; apart from `SamplingSettings`, of which the samples in a store are made."""

    engine: Engine = "local"  # server = the model at `server`, which serves the same weights
    server: ServerSettings | None = None  # for the engine server
    cluster: How[ClusterSettings | None] = None  # null = in this process

    def __post_init__(self) -> None:
        if self.engine == "server" and self.server is None:
            raise SettingsError("sampler.engine is 'server': set sampler.server.base_url and model.")
        if self.engine == "local" and self.server is not None:
            raise SettingsError("sampler.server is set: set sampler.engine to server, too, or leave it out.")
