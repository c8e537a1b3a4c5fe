"""Scores (mean token log-probabilities) of the responses of a question, which share its prompt."""
