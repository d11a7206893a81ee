"""The windows in which most layers of Qwen2.5-VL's vision tower attend.

Blocks of patches are put in the order of their windows, so that each window is a run of
neighbours; behind the last layer the feature rows are put back.

Source: huggingface/transformers, vision_utils.py (get_vision_window_index).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def window_order(
    moments: int, rows: int, columns: int, side: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Order blocks by window: window by window, row by row inside each.

    Args:
        moments: Images one after the other, all of one grid; no window reaches over two.
        rows: Of blocks, in each.
        columns: Likewise.
        side: Blocks along either side of a window; those at the right and lower edge are smaller.

    Returns:
        The blocks in their new order, int32, (moments * rows * columns,); and how many blocks each
        window has, int32, none of them 0.
    """
    down, across = np.indices((rows, columns), np.int32) // side
    windows = (down * (-(-columns // side)) + across).reshape(-1)
    order = np.argsort(windows, kind='stable').astype(np.int32)
    starts = np.arange(moments, dtype=np.int32)[:, None] * np.int32(rows * columns)
    lengths = np.bincount(windows).astype(np.int32)
    return (starts + order).reshape(-1), np.tile(lengths, moments)
