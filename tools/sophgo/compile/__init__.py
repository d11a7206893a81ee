"""Build the emulator's fixtures with Sophgo's own compiler, from PyPI, without a chip or torch."""
