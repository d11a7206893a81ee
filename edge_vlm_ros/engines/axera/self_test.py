"""Finds out, when a model is loaded, how far a board's driver lets memory be bound in place.

That layers may share buffers is known from the vendor's own C++ runner; that outputs may point
into the caches is not documented. So the first two layers and the head run the same few tokens the
portable way and in place, and every logit must be the same bit for bit: it is the same compiled
program on the same input bytes (no padding is run, which the two ways leave differently), so there
is nothing to be tolerant of, and one wrong cache row of a hundred would hide in a tolerance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, ModelFileError, ModelFiles
from edge_vlm_ros.engines.axera.backend import LayerBackend, OnFile, nothing
from edge_vlm_ros.engines.axera.graphs import PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.in_place import InPlaceBackend, RowWriterType
from edge_vlm_ros.engines.axera.library import Library
from edge_vlm_ros.engines.axera.rows import CopiedRows, DirectRows, takes_direct_rows
from edge_vlm_ros.engines.base import never
from edge_vlm_ros.engines.bf16 import to_bf16

_log = logging.getLogger(__name__)

OpenPortable: TypeAlias = Callable[[StackShapes], LayerBackend]
"""Opens the portable backend on the same files, with as many layers as the shapes say."""

_LAYERS: Final = 2  # the second reads what the first wrote
_STEPS: Final = 3  # each at an address of its own; the third reads what the second wrote
_EMBED_SCALE: Final = 0.1
_SEED: Final = 4


def open_in_place(
    files: ModelFiles,
    shapes: StackShapes,
    open_portable: OpenPortable,
    on_file: OnFile = nothing,
) -> InPlaceBackend | None:
    """Open a set in place, the fastest way that gives what the portable way gives.

    Before, a few chunks and steps of two layers are run each way; memory taken for that is free
    again when the set is opened. For chips on their own board: memory of cards is out of reach.

    Args:
        files: Of the set.
        shapes: Of the set.
        open_portable: Opens what is compared with.
        on_file: Called after each file of the set is loaded, not for the trial's.

    Returns:
        The backend; None = only the portable way works, and one warning said why.

    Raises:
        ModelFileError: A file is missing, damaged, or does not fit the others.
        DeviceError: The portable way fails, or the chip has no memory left for the whole set.
    """
    few = replace(shapes, layers=min(_LAYERS, shapes.layers))
    with closing(open_portable(few)) as portable:
        expected = list(_logits(portable, few))
    try:
        library = Library()  # from here on the driver is initialised: a session has been open
    except DeviceError as error:
        _warn([error.message])
        return None
    reasons: list[str] = []
    for rows, name in _ways(shapes):
        why = _difference(library, files, few, rows, expected)
        if not why:
            _log.info('caches stay on the chip: %s', '; not '.join([name, *reasons]))
            return InPlaceBackend(library, files, shapes, rows, on_file)
        reasons.append(f'{name}: {why}')
    _warn(reasons)
    return None


def _ways(shapes: StackShapes) -> Iterator[tuple[RowWriterType, str]]:
    """Give the ways that the shapes allow, fastest first."""
    if takes_direct_rows(shapes):
        yield DirectRows, DirectRows.name
    yield CopiedRows, CopiedRows.name


def _warn(reasons: list[str]) -> None:
    _log.warning(
        'answers will be slower than the chip allows: all caches are copied at every token, '
        'because driving the chip in place did not give what axengine gives (%s)',
        '; '.join(reasons),
    )


def _difference(
    library: Library,
    files: ModelFiles,
    shapes: StackShapes,
    rows: RowWriterType,
    expected: list[NDArray[np.float32]],
) -> str:
    """Run in place; say what differs, '' = nothing."""
    try:
        with closing(InPlaceBackend(library, files, shapes, rows)) as backend:
            for i, found in enumerate(_logits(backend, shapes)):
                why = _unequal(found, expected[i])
                if why:
                    return f'{why} after run {i + 1} of {len(expected)}'
    except (DeviceError, ModelFileError) as error:
        return error.message
    return ''


def _unequal(found: NDArray[np.float32], expected: NDArray[np.float32]) -> str:
    wrong = np.count_nonzero(found.view(np.uint32) != expected.view(np.uint32))
    if not wrong:
        return ''
    with np.errstate(invalid='ignore'):  # they may be anything
        worst = float(np.max(np.abs(found - expected)))
    return f'{wrong} of {len(expected)} logits differ, by up to {worst:.3g},'


def _logits(backend: LayerBackend, shapes: StackShapes) -> Iterator[NDArray[np.float32]]:
    """Run a few whole chunks, then single tokens; give the logits after each."""
    random = np.random.default_rng(_SEED)
    length = 0

    def embeds(tokens: int) -> NDArray[np.uint16]:
        drawn = random.standard_normal((tokens, shapes.hidden), np.float32)
        return to_bf16(drawn * np.float32(_EMBED_SCALE))

    for group, row in _chunks(shapes):
        positions = _positions(row, group.chunk, shapes)
        backend.prefill(group, embeds(group.chunk), positions, row, never)
        length = row + group.chunk
        yield backend.head().copy()
    for row in range(length, min(length + _STEPS, shapes.capacity)):
        decode = next(group for group in shapes.decode if group.capacity > row)
        backend.step(decode, embeds(1)[0], _positions(row, 1, shapes), row)
        yield backend.head().copy()


def _chunks(shapes: StackShapes) -> Iterator[tuple[PrefillGroup, int]]:
    """Give a first chunk, then one after a history, and that again one row earlier.

    The last one reads rows that it would write, so `DirectRows` takes the scratch for it. Rows of
    a history longer than the first chunk are zeros either way.
    """
    yield shapes.prefill[0], 0
    group = next((group for group in shapes.prefill if group.history), None)
    if group is not None and group.history + group.chunk < shapes.capacity:
        yield group, group.history
        yield group, group.history - 1


def _positions(row: int, tokens: int, shapes: StackShapes) -> NDArray[np.uint32]:
    line = np.arange(row, row + tokens, dtype=np.uint32)
    if shapes.position_rows == 1:
        return line
    return np.tile(line, (shapes.position_rows, 1))
