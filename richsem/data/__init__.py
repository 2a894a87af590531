"""Data sets: the embedded benchmark, the real sets it stands for, and their readers."""
