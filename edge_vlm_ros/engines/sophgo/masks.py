"""Attention masks and patch positions, as the nets take them. Pure functions.

A mask is added to the scores: 0 sees, a large negative number does not. The number differs by
type, and the bits of one type mean something harmless in another: bfloat16's pattern read as
float16 is -6.1, and padding leaks into attention.

Source of the values: the vendor's drivers (LLM-TPU), which write -10000 rounded towards zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.bf16 import from_bf16, to_bf16
from edge_vlm_ros.engines.sophgo.nets import DType

# -9984 in bfloat16 and -10000 in float16, as bits.
_BLOCKED_BITS = {DType.BFLOAT16: 0xC61C, DType.FLOAT16: 0xF0E2}
_ONE_BITS = {DType.BFLOAT16: 0x3F80, DType.FLOAT16: 0x3C00}
_BLOCKED = -10000


def blocked(dtype: DType) -> int | float:
    """Return what hides a column, in the host type of `dtype`."""
    return _BLOCKED_BITS.get(dtype, _BLOCKED)


def one(dtype: DType) -> int | float:
    """Return 1.0 in the host type of `dtype`."""
    return _ONE_BITS.get(dtype, 1)


def to_half(values: NDArray[np.float32], dtype: DType) -> NDArray[np.uint16]:
    """Round float32 to the bits of a half type, ties to even."""
    if dtype is DType.BFLOAT16:
        return to_bf16(values)
    assert dtype is DType.FLOAT16
    return values.astype(np.float16).view(np.uint16)


def from_host(values: NDArray[Any], dtype: DType) -> NDArray[np.float32]:
    """Widen what crossed the vendor's edge as `dtype` to float32."""
    if dtype is DType.BFLOAT16:
        return from_bf16(values)
    if dtype is DType.FLOAT16:
        return values.view(np.float16).astype(np.float32)
    return values.astype(np.float32)


def causal_mask(rows: int, dtype: DType) -> NDArray[Any]:
    """Let each row see itself and the rows before it: (rows, rows).

    Right for every prompt: rows after the prompt's last one see more than they should, and
    nobody reads them.
    """
    return _hidden_above_diagonal(rows, dtype)


def history_mask(held: int, of: range, rows: int, history: int, dtype: DType) -> NDArray[Any]:
    """Let each new row see `held` rows of the history, itself and the new rows before it.

    Args:
        held: Rows of the history that count; the rest is hidden.
        of: Which of the new rows; a run of them.
        rows: New rows of one chunk.
        history: Columns of the history.
        dtype: Of the mask.

    Returns:
        (len(of), history + rows): the history's columns first, as the five-input blocks take them.
    """
    mask = np.full((len(of), history + rows), blocked(dtype), dtype.host)
    mask[:, :held] = 0
    mask[:, history:][np.arange(rows) <= np.array(of)[:, None]] = 0
    return mask


def _hidden_above_diagonal(rows: int, dtype: DType) -> NDArray[Any]:
    above = np.triu(np.ones((rows, rows), np.bool_), 1)
    return np.where(above, np.array(blocked(dtype), dtype.host), np.array(0, dtype.host))


def decode_mask(held: int, capacity: int, dtype: DType) -> NDArray[Any]:
    """Let the new token see `held` cached rows and itself, whose column is the last.

    Returns:
        (capacity + 1,).
    """
    mask = np.full(capacity + 1, blocked(dtype), dtype.host)
    mask[:held] = 0
    mask[capacity] = 0
    return mask


def patch_mask(groups: int, group_rows: int, rows: int, dtype: DType) -> NDArray[Any]:
    """Let the patches of one frame see each other and nothing else; padding is hidden.

    Args:
        groups: Frames (temporal groups) in the launch.
        group_rows: Patches of each.
        rows: Patches that the net takes.
        dtype: Of the mask.

    Returns:
        (rows, rows), block diagonal.
    """
    return block_mask([group_rows] * groups, rows, dtype)


def block_mask(
    lengths: Sequence[int], rows: int, dtype: DType, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Let the patches of each run of neighbours see each other; padding is hidden.

    Args:
        lengths: Patches of each run: of a frame, or of a window.
        rows: Patches that the net takes.
        dtype: Of the mask.
        out: Where to write, (rows, rows); None = a new array.

    Returns:
        (rows, rows), block diagonal; `out` where given.
    """
    mask = np.empty((rows, rows), dtype.host) if out is None else out
    mask.fill(blocked(dtype))
    start = 0
    for length in lengths:
        mask[start : start + length, start : start + length] = 0
        start += length
    return mask


def patch_positions(groups: int, height: int, width: int) -> NDArray[np.int32]:
    """Give each patch its row and column, in the order in which Qwen2-VL merges 2 x 2 patches.

    Args:
        groups: Frames (temporal groups); each has the same positions.
        height: Patches, even.
        width: Patches, even.

    Returns:
        int32, (groups * height * width, 2).
    """
    rows, columns = np.indices((height, width), dtype=np.int32)

    def merged(axis: NDArray[np.int32]) -> NDArray[np.int32]:
        blocks: NDArray[np.int32] = axis.reshape(height // 2, 2, width // 2, 2)
        flat: NDArray[np.int32] = blocks.transpose(0, 2, 1, 3).reshape(-1)
        return flat

    positions: NDArray[np.int32] = np.stack([merged(rows), merged(columns)], axis=1)
    return np.tile(positions, (groups, 1))


def cross_row_mask(first: int, tokens: int, rows: int, dtype: DType) -> NDArray[Any]:
    """Tell the cross-attention layers which rows stand at or after the image: (rows,).

    The others keep their hidden state from these layers' MLP, as in the reference model.
    """
    mask = np.zeros(rows, dtype.host)
    mask[first:tokens] = one(dtype)
    return mask


def cross_mask(
    first: int, tokens: int, rows: int, image_row: NDArray[Any], dtype: DType
) -> NDArray[Any]:
    """Let the rows at or after the image see its tiles: (rows, columns).

    Rows before the image see everything, padding tiles too: in the reference model a row that is
    hidden from every tile gets an open mask, and loses only its MLP. Rows after the prompt see
    nothing; nobody reads them.

    Args:
        first: The row of the image's token.
        tokens: Rows of the prompt.
        rows: Rows of the net.
        image_row: What a row after the image sees, as `cross_decode_mask` gives it.
        dtype: Of the mask.
    """
    mask = np.full((rows, image_row.size), blocked(dtype), dtype.host)
    mask[:first] = 0
    mask[first:tokens] = image_row
    return mask


def cross_decode_mask(rows_used: int, rows: int, dtype: DType) -> NDArray[Any]:
    """Let an answer's token see the `rows_used` rows that hold image tiles: (rows,)."""
    mask = np.full(rows, blocked(dtype), dtype.host)
    mask[:rows_used] = 0
    return mask
