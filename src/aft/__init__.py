"""Alignment Fine-Tuning: models that reason better by learning from their own right and wrong chains of thought."""

__version__ = "0.4.0"
