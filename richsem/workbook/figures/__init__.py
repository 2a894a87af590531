"""Pictures: style, plots and notebook widgets. Nothing here computes a result."""
