"""What there is to compute with, cores and GPUs, and the share of it that each of several processes has."""

import ctypes
import gc
import logging
import os
import sys
from functools import cache

logger = logging.getLogger(__name__)

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
SMALL = 1_000_000  # weights: with fewer, one thread takes a step as fast as several, or faster
_TRIM, _MMAP = -1, -3  # of glibc's mallopt: how much that is free it keeps; what is so large is always given back
_KEPT = {_MMAP: 2**25, _TRIM: 2**28}  # bytes
_GARBAGE = (50_000, 20, 20)  # objects, and rounds, between two looks for garbage in cycles; Python's own: 700, 10, 10
_shared: dict[str, int | None] = {}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as `VISIBLE` names them: by number, or as they are named there already."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        names = [name.strip() for name in named.split(",")]
        return names[: next((at for at, name in enumerate(names) if name in ("", "-1")), None)]  # as CUDA reads it
    import torch

    return list(map(str, range(torch.cuda.device_count())))


def usual_jobs(processes: int = 1) -> int:
    """How many jobs run at once if nobody says: as many as GPUs suffice for, `processes` for each, else as cores."""
    devices = visible_devices()
    return max(1, len(devices) // processes) if devices else cores()


def shares_of(devices: list[str], jobs: int) -> list[dict[str, str]]:
    """The environment variable that gives each of so many jobs its GPUs, dealt in turn; none where there are none.

    Of more jobs than GPUs several share one; of fewer, each has several.
    """
    count = len(devices)
    return [{VISIBLE: ",".join(devices[job % count :: jobs])} if count else {} for job in range(jobs)]


def collect_seldom() -> None:
    """Look for garbage in cycles less often than Python would.

    Imports, configuration and records make objects by the million that stay, and a step of training leaves no tensor
    in a cycle: of a run that finds everything made, a twelfth went into looking.
    """
    gc.set_threshold(*_GARBAGE)


def share_cores(processes: int, threads: int | None = None) -> None:
    """From here on so many processes, this one among them, compute on these cores at once; see `use_threads`."""
    _shared.update(processes=processes, threads=threads)


def use_threads(weights: int) -> None:
    """Have torch compute with the threads that serve a model of so many weights: one if it is small, else all cores.

    Cores that several processes share are dealt out. Where `share_cores` was given a number, or `THREADS` says one,
    it is so many; the latter goes first.
    """
    import torch

    if THREADS not in os.environ:
        usual = 1 if weights < SMALL else max(1, _all_threads() // (_shared.get("processes") or 1))
        torch.set_num_threads(_shared.get("threads") or usual)


def keep_memory(weights: int) -> None:
    """Have glibc keep up to 256 MiB of what a small model's tensors leave for those of the next step.

    It gives each free megabyte back to the kernel, which hands out zeroed pages anew: 6,000 page faults in a training
    step of the pocket model, a tenth of its time. Elsewhere, or for a larger model, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if weights < SMALL and mallopt is not None:
        for what, most in _KEPT.items():
            mallopt(what, most)


def warn_of_slowness(device: str, *, half: bool = False, recomputes: bool = False) -> None:
    """Warn where settings that are meant for large models on a GPU are used on a processor.

    Measured with SmolLM2-135M: bfloat16 with gradient checkpointing takes 4.7 times as long as float32 without.
    """
    used = [*(["bfloat16 (precision)"] if half else []), *(["gradient_checkpointing"] if recomputes else [])]
    if device == "cpu" and used:
        logger.warning(
            "There is no GPU: %s may take several times as long on a processor; set training.precision to float32 and "
            "training.gradient_checkpointing to false, unless memory does not suffice.",
            " and ".join(used),
        )


@cache
def _all_threads() -> int:
    """What torch takes if nobody says, asked before we do."""
    import torch

    return torch.get_num_threads()
