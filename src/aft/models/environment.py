"""Environment variables that must not decide a result: settings of other launchers, and of float32's precision.

`accelerate` and `transformers` take precision, device, compilation, sharding and the number of processes from variables
that `accelerate launch`, MPI or another program's job may have left. They are in no key of a model or of what it says,
so they must not count.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from aft.errors import SettingsError

logger = logging.getLogger(__name__)

# Beginnings of names that accelerate and transformers read while a model is loaded and trained.
_SETTINGS = (
    *("ACCELERATE_", "FSDP_", "FORK_LAUNCHED", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "SM_", "XLA_"),
    *("PMI_", "OMPI_", "MV2_", "MPI_"),  # of processes that MPI started
)
# That torch's own launcher sets for each of its processes; in a process that trains alone they are strays.
_OF_PROCESSES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")
# Which lower the precision of float32 products, and are read before we come: the values that change nothing.
_TOO_LATE = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0",
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "DNNL_DEFAULT_FPMATH_MODE": "STRICT",
}


@contextmanager
def cleared(*, launched: bool = False) -> Iterator[None]:
    """Within, no variable decides what is loaded or trained; afterwards all are as before, also what was set meanwhile.

    `launched` keeps those of torch's launcher, for one of several processes. What was there is named in the log, once
    in a process. Raises `SettingsError` as `refuse_low_precision` does.
    """
    refuse_low_precision()
    before = dict(os.environ)
    beginnings = _SETTINGS if launched else (*_SETTINGS, *_OF_PROCESSES)
    found = sorted(name for name in before if name.startswith(beginnings))
    if found:
        _tell(", ".join(found))
    for name in found:
        del os.environ[name]
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@cache
def _tell(names: str) -> None:
    logger.warning("Models are loaded and trained without these environment variables: %s.", names)


def refuse_low_precision() -> None:
    """Raise `SettingsError` for a variable that lowers the precision of float32 and that it is too late to clear."""
    for name, harmless in _TOO_LATE.items():
        if os.environ.get(name, harmless).upper() not in ("", harmless):
            raise SettingsError(
                f"The environment variable {name} is {os.environ[name]}, which changes the precision of float32: unset "
                "it, and set training.precision or sampling.precision."
            )
