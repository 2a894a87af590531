"""Training runs as data: functions that return complete configurations."""
