"""Errors that a user can cause, as one sentence instead of a traceback."""

import re
from typing import Any

from kedro.config import MissingConfigException
from kedro.framework.cli.utils import KedroCliError
from kedro.io import DatasetError
from kedro.runner import AbstractRunner
from kedro.utils import load_obj
from kedro.validation.exceptions import ParameterValidationError
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from aft.errors import AftError, SettingsError


def check_runner(name: str | None, params: dict[str, Any]) -> None:
    """Raise `SettingsError` if there is no runner of this name, or if it does not take `params`."""
    try:
        runner = load_obj(name or "SequentialRunner", "kedro.runner")
        is_one = isinstance(runner, type) and issubclass(runner, AbstractRunner)
        if is_one:
            runner(**params)
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise SettingsError(
            f"There is no runner {name} with the options {params}: {error}; leave out --runner."
        ) from error
    if not is_one:
        raise SettingsError(f"{name} is no runner of Kedro's; leave out --runner.")


def one_sentence(error: BaseException) -> str | None:
    """What the user should read, if the error is one that a user can cause: it or what caused it is ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AftError):
            return str(cause)
        if type(cause).__name__ == "OutOfMemoryError":  # torch's, which is not imported for its sake
            return _of_memory(str(cause))
        if isinstance(cause, ParameterValidationError):
            return _without_pydantic(str(cause))
        cause = cause.__cause__ or cause.__context__
    said = " ".join(str(error).split())
    kedros = isinstance(error, MissingConfigException | KedroCliError | ValueError)
    if (kedros or (isinstance(error, DatasetError) and error.__cause__ is None)) and _raised_in("kedro", error):
        return said
    unreadable = isinstance(error, YAMLError | OmegaConfBaseException)
    if unreadable or _raised_in("omegaconf", error) or _raised_in("kedro.config", error):
        return f"The configuration cannot be read ({said}); each of its files holds keys with their values."
    return None


def _of_memory(message: str) -> str:
    """Torch's message about a GPU that is full, without its advice to developers, and the settings that use less."""
    said = ". ".join(message.split(". ")[:2]).rstrip(".")
    return (
        f"{said}. Lower training.token_budget, sampling.batch_rows or evaluation.sampling.batch_rows, whichever stage "
        "this was, or end what else is on this GPU, and run the same command again: results do not change by it, and "
        "finished work is kept."
    )


def _without_pydantic(message: str) -> str:
    """Kedro's message about a parameter that does not fit, in one line and without pydantic's notes to developers."""
    kept = [line.strip() for line in message.splitlines() if not line.strip().startswith("For further information")]
    return re.sub(r"\.? \[type=.*?\](?= |$)", ";", " ".join(kept)).rstrip("; .") + "."


def _raised_in(package: str, error: BaseException) -> bool:
    """Whether a package raised the error itself, as Kedro does for an unknown pipeline, namespace, node or tag."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith(f"{package}.")
