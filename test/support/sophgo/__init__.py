"""Sophgo without a chip: stand-in for sophon.sail, runner of the chip emulator, model builds."""
