"""The one error tree: every mistake that a user can make ends in one of these, as one sentence with the way out.

Each class also inherits the built-in exception that a library user would expect to catch.
"""


class AftError(Exception):
    """Root of all errors that AFT raises on purpose; its message is one sentence meant for a person."""


class SettingsError(AftError, ValueError):
    """A setting, recipe, variant or parameter key that does not exist or does not fit."""


class DataError(AftError, ValueError):
    """A missing or malformed row or file; the message names the file and the line, or the row's id."""


class ModelError(AftError, ValueError):
    """A model directory that is missing, incomplete or not the one that was pinned."""


class StoreError(AftError, RuntimeError):
    """A store that is in use by another run, belongs to other settings, or cannot be written."""


class NumericalError(AftError, ArithmeticError):
    """A score or loss that is not finite; the message names the questions of the batch."""


class WorkerError(AftError, RuntimeError):
    """A process of several that ended early; what the others had finished is kept."""


class IncompleteRecord(AftError, RuntimeError):
    """What was computed is complete and kept, but not all that a run was to write into MLflow is there."""
