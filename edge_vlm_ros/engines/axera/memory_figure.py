"""What the driver says of the chip's memory, without opening the chip."""

from __future__ import annotations

from edge_vlm_ros.core import MemoryFigure, ModelFiles
from edge_vlm_ros.engines.axera.chip_memory import cmm_info_path, free_chip_bytes
from edge_vlm_ros.engines.axera.memory_guard import KEPT_FREE, needed_bytes


def memory_figure(files: ModelFiles) -> MemoryFigure | None:
    """Read how much is free, beside what a set needs; None where the driver does not say."""
    source = cmm_info_path()
    free = free_chip_bytes(source)
    if free is None:
        return None
    return MemoryFigure(free, needed_bytes(files) + KEPT_FREE, str(source))
