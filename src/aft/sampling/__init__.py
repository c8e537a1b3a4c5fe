"""k responses per question (rollouts): engine, server, cluster and store."""
