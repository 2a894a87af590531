"""Published checkpoints, translated name by name."""
