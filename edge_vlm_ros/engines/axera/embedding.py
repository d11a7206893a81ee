"""The embedding table: stays on disk, only rows that are asked for are read.

InternVL3-2B's has 151674 rows of 1536: 889 MiB as float32. It lies beside the axmodels as .npy
(float32, float16, or bfloat16 as numpy stores what it does not know), or as raw bfloat16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelFileError, require_regular
from edge_vlm_ros.engines.bf16 import to_bf16

_BF16_BYTES = 2
_LARGEST = 1 << 40


class EmbeddingTable:
    """Rows of the language model's inputs.

    Args:
        path: .npy, or .bin of raw bfloat16.
        hidden: Width of a row.

    Raises:
        ModelFileError: Missing, damaged, or of another width or type.
    """

    def __init__(self, path: Path, hidden: int) -> None:
        table = _raw(path, hidden) if path.suffix == '.bin' else _npy(path)
        if table.ndim != 2 or table.shape[1] != hidden or not len(table):
            raise ModelFileError(
                f'{path}: expected a table of width {hidden}, as the layers take it, '
                f'found {list(table.shape)}'
            )
        # Seen as a plain array: numpy's class for mapped files makes every look-up dearer.
        self._table: NDArray[Any] | None = table.view(np.ndarray)

    @property
    def rows(self) -> int:
        """How many ids it has."""
        assert self._table is not None
        return len(self._table)

    def look_up(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
        """Read rows: bfloat16 bit patterns, (ids, hidden), in memory of their own."""
        return self._read(ids)

    def row(self, token: int) -> NDArray[np.uint16]:
        """Read one row: (hidden,), of the table itself where it has bfloat16."""
        return self._read(token)

    def _read(self, ids: NDArray[np.integer[Any]] | int) -> NDArray[np.uint16]:
        assert self._table is not None
        rows: NDArray[Any] = self._table[ids]
        if rows.dtype == np.uint16:
            return rows
        return to_bf16(rows.astype(np.float32, copy=False))

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self._table = None


def rows_of_table(path: Path, hidden: int | None) -> int | None:
    """Count the rows of a table by its file alone; None = raw, and the width is not known.

    Raises:
        ModelFileError: Missing or damaged.
    """
    if path.suffix != '.bin':
        table = _npy(path)
        return len(table) if table.ndim == 2 else None
    return None if hidden is None else len(_raw(path, hidden))


def _npy(path: Path) -> NDArray[Any]:
    require_regular(path, _LARGEST)
    try:
        table: NDArray[Any] = np.load(path, mmap_mode='r', allow_pickle=False)
    except Exception as error:  # of a damaged header, by version: SyntaxError, OverflowError ...
        raise ModelFileError(f'{path}: cannot be read as an array: {error}') from error
    if not isinstance(table, np.ndarray):  # numpy opens a zip, whatever its name
        raise ModelFileError(f'{path}: expected one array, found an archive')
    if table.dtype.kind == 'V' and table.dtype.itemsize == _BF16_BYTES:
        return table.view(np.uint16)
    if table.dtype not in {np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint16)}:
        raise ModelFileError(f'{path}: expected float32, float16 or bfloat16, found {table.dtype}')
    return table


def _raw(path: Path, hidden: int) -> NDArray[np.uint16]:
    nbytes = require_regular(path, _LARGEST)
    try:
        if not nbytes or nbytes % (hidden * _BF16_BYTES):
            raise ModelFileError(
                f'{path}: {nbytes} bytes are no whole rows of {hidden} bfloat16 values, '
                'as the layers take them'
            )
        return np.memmap(path, np.uint16, 'r').reshape(-1, hidden)
    except OSError as error:
        raise ModelFileError(f'{path}: cannot be read: {error}') from error
