"""What the notebooks study, one module each: they ask, these compute."""
