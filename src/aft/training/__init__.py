"""The trainer of every stage, its data, order and checkpoints."""
