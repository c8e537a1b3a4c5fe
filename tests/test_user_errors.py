"""What a user reads in place of a traceback."""

import torch

from aft.user_errors import one_sentence


def test_a_gpu_that_is_full_is_told_with_the_settings_that_use_less() -> None:
    """Also where another error was raised over it; torch's advice on its allocator is left out."""
    full = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 88.00 MiB. GPU 0 has a total capacity of 79.18 GiB. See documentation."
    )
    over = RuntimeError("the node failed")
    over.__cause__ = full
    for error in (full, over):
        said = str(one_sentence(error))
        assert said.startswith("CUDA out of memory. Tried to allocate 88.00 MiB. Lower training.token_budget")
        assert "GPU 0" not in said and "run the same command again" in said


def test_an_error_of_the_programme_keeps_its_traceback() -> None:
    assert one_sentence(RuntimeError("CUDA error: device-side assert triggered")) is None
