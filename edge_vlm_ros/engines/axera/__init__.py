"""The Axera engine: axmodels on AX650N and AX630C."""
