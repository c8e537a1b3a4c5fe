"""Scores of responses that share a question."""
