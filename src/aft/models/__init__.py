"""Model directories, and the pocket base model."""
