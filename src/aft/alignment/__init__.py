"""Alignment losses: ranking and preference losses as pure functions of the scores of responses."""
