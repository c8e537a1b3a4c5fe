"""Kedro hooks: MLflow tracking, checks of parameters and inputs, locks, the summary of a run."""
