"""Labels (outcome rewards), ratings and ranks of sampled responses."""
