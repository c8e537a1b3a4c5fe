"""Labels, ranks and counts of sampled responses."""
