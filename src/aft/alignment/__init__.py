"""What the ranking of responses asks of their scores: losses as pure functions."""
