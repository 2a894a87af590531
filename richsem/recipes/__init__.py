"""Runs as data: functions that return complete configurations."""
