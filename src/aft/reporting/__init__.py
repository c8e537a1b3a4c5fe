"""Figures, the HTML report, and the pages of the studies."""
