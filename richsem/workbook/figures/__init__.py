"""Pictures: style, plots and notebook widgets. Only explorers compute what they draw."""
