"""k responses per question: the engine and the store."""
