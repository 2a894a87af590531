"""DINO with the semantic branch (METHOD 1 and 2)."""
