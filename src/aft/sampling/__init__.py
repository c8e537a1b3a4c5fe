"""k responses per question (rollouts): engine, server and cluster."""
