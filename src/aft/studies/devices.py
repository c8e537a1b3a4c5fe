"""The GPUs and threads of each of several cells that run at once: a GPU of its own where there are some."""

import os

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as `VISIBLE` names them: by number, or as they are named there already."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        names = [name.strip() for name in named.split(",")]
        return names[: next((at for at, name in enumerate(names) if name in ("", "-1")), None)]  # as CUDA reads it
    import torch

    return list(map(str, range(torch.cuda.device_count())))


def usual_jobs(processes: int) -> int:
    """How many cells run at once without -j: as many as GPUs suffice for, `processes` for each, else one per core."""
    devices = visible_devices()
    return max(1, len(devices) // processes) if devices else os.cpu_count() or 1


def shares_of(devices: list[str], jobs: int) -> list[dict[str, str]]:
    """The environment variables of each of so many jobs: its GPUs, dealt in turn, and one thread if there are others.

    Of more jobs than GPUs several share one; of fewer, each has several.
    """
    threads = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    count = len(devices)
    return [{**threads, **({VISIBLE: ",".join(devices[job % count :: jobs])} if count else {})} for job in range(jobs)]
