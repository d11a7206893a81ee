"""The chip `remote`: questions that servers answer, as a `Backend`."""
