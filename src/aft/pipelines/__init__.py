"""The six stages: each pipeline.py says what flows where, each nodes.py calls the core."""
