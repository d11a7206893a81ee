"""Makers of the compiled Sophgo fixtures."""
