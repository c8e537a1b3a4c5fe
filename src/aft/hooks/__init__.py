"""What happens around a run: tracking, checks of parameters, the summary."""
