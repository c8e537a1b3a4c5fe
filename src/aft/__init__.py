"""Alignment Fine-Tuning: models that reason better by learning from their own right and wrong chains of thought."""

from aft import code as code  # first of all: it notes the source that the other modules are imported from

__version__ = "0.5.0"
