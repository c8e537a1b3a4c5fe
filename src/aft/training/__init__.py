"""The training loop of every stage (SFT and alignment), its examples, batches and checkpoints."""
