"""Accuracy, assessment, statistics and figures."""
