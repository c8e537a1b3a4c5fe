"""Metrics only: accuracy, assessment, calibration, comparison, statistics."""
