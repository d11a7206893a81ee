"""What the Sophgo figures are measured with, in a process with the emulated chip."""
