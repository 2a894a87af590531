"""Keeping, scheduling and describing runs."""
