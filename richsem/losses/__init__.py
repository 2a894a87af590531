"""Criteria: what a detector's output costs, given the annotations. No network runs here."""
