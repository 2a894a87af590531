"""Networks: the frozen CLIP teacher, the embedded small CLIP."""
