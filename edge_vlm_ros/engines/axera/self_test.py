"""Finds out, when a model is loaded, how far a board's driver lets memory be bound in place.

That layers may share buffers is known from the vendor's own C++ runner; that outputs may point
into the caches is not documented. So the first two layers and the head run the same few tokens the
portable way and in place, and every logit must be the same bit for bit: it is the same compiled
program on the same input bytes (no padding is run, which the two ways leave differently), so there
is nothing to be tolerant of, and one wrong cache row of a hundred would hide in a tolerance.

Nor is it documented that one model may be run on other caches than in its first run. So a second
slot gets other tokens, and after them the first one its last token again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, EdgeVlmError, ModelFileError, ModelFiles
from edge_vlm_ros.engines.axera.backend import LayerBackend, OnFile, nothing
from edge_vlm_ros.engines.axera.chip import Chip
from edge_vlm_ros.engines.axera.chunk_trial import chunks_differ
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.in_place import InPlaceBackend
from edge_vlm_ros.engines.axera.rows import (
    CopiedHistories,
    CopiedRows,
    DirectRows,
    RowWriterType,
    takes_direct_rows,
)
from edge_vlm_ros.engines.base import never
from edge_vlm_ros.engines.bf16 import to_bf16

_log = logging.getLogger(__name__)

OpenChip: TypeAlias = Callable[[], Chip]
"""Gives the chip beneath axengine, whose driver a session has initialised before."""
OpenPortable: TypeAlias = Callable[[StackShapes], LayerBackend]
"""Opens the portable backend on the same files, with as many layers as the shapes say."""

_LAYERS: Final = 2  # the second reads what the first wrote
_STEPS: Final = 3  # each at an address of its own; the third reads what the second wrote
_EMBED_SCALE: Final = 0.1
_SEEDS: Final = (4, 5)
"""Of what is run in the first slot and in the second."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A whole chunk of a prefill group, or one token of a decode group.

    Attributes:
        group: Which.
        row: Of the caches, where its first row goes.
        embeds: (tokens, hidden).
    """

    group: PrefillGroup | DecodeGroup
    row: int
    embeds: NDArray[np.uint16] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Talk:
    """Runs that follow each other in one slot, and the logits that axengine gives after each."""

    runs: list[_Run] = field(repr=False)
    expected: list[NDArray[np.float32]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """What the trial at load found.

    Attributes:
        backend: The set opened in place, its `takes_slots` found out; None = only the portable way
            works, and one warning said why.
        stale: On a card, why axengine's own chunks cannot be trusted; '' = they can.
    """

    backend: InPlaceBackend | None
    stale: str = ''


def open_in_place(  # noqa: PLR0913 (what a set is made of, and how it is opened)
    files: ModelFiles,
    shapes: StackShapes,
    open_portable: OpenPortable,
    open_chip: OpenChip,
    on_file: OnFile = nothing,
    *,
    is_card: bool = False,
) -> Trial:
    """Open a set in place, the fastest way that gives what the portable way gives.

    Before, a few chunks and steps of two layers are run each way; memory taken for that is free
    again when the set is opened. On a card every prefill group is tried besides (`chunk_trial`).

    Args:
        files: Of the set.
        shapes: Of the set.
        open_portable: Opens what is compared with.
        open_chip: Called once, after the portable way was opened.
        on_file: Called after each file of the set is loaded, not for the trial's.
        is_card: Whether the chip sits on a card.

    Raises:
        ModelFileError: A file is missing, damaged, or does not fit the others.
        DeviceError: The portable way fails, or the chip has no memory left for the whole set.
    """
    few = replace(shapes, layers=min(_LAYERS, shapes.layers))
    with closing(open_portable(few)) as portable:
        stale = _chunks_differ(portable, few) if is_card else ''
        talks = [_talk(portable, few, slot, takes_chunks=not stale) for slot in range(len(_SEEDS))]
    reasons = [f'axengine itself: {stale}'] if stale else []
    try:
        chip = open_chip()  # from here on the driver is initialised: a session has been open
    except EdgeVlmError as error:
        _warn([*reasons, error.message])
        return Trial(None, stale)
    for rows, name in _ways(shapes, is_card=is_card):
        found = _try_out(chip, files, few, rows, talks, is_card=is_card)
        if not found.in_place:
            if found.slots:
                reasons.append(f'a second prompt beside the first: {found.slots}')
            _log.info('caches stay on the chip: %s', '; not '.join([name, *reasons]))
            backend = InPlaceBackend(chip, files, shapes, rows, on_file)
            backend.takes_slots = not found.slots
            return Trial(backend, stale)
        reasons.append(f'{name}: {found.in_place}')
    _warn(reasons)
    return Trial(None, stale)


def find_stale_chunks(open_portable: OpenPortable, shapes: StackShapes) -> str:
    """Say why axengine's chunks cannot be trusted on a card; '' = they can.

    Args:
        open_portable: Opens two layers of the set.
        shapes: Of the set.

    Raises:
        ModelFileError: A file is missing, damaged, or does not fit the others.
        DeviceError: The card failed.
    """
    few = replace(shapes, layers=min(_LAYERS, shapes.layers))
    with closing(open_portable(few)) as portable:
        return _chunks_differ(portable, few)


def _chunks_differ(backend: LayerBackend, shapes: StackShapes) -> str:
    def run(
        group: PrefillGroup | DecodeGroup, row: int, embeds: NDArray[np.uint16]
    ) -> NDArray[np.float32]:
        return _logits(backend, _Run(group, row, embeds), shapes)

    return chunks_differ(run, shapes)


def _talk(portable: LayerBackend, shapes: StackShapes, slot: int, *, takes_chunks: bool) -> _Talk:
    """Have the portable way run what a slot is tried with."""
    portable.select(slot)
    runs = list(_runs(shapes, _SEEDS[slot], takes_chunks=takes_chunks))
    return _Talk(runs, [_logits(portable, run, shapes) for run in runs])


def _ways(shapes: StackShapes, *, is_card: bool) -> Iterator[tuple[RowWriterType, str]]:
    """Give the ways that the shapes allow, fastest first."""
    if takes_direct_rows(shapes):
        yield DirectRows, DirectRows.name
    yield CopiedRows, CopiedRows.name
    if is_card:
        yield CopiedHistories, CopiedHistories.name


def _warn(reasons: list[str]) -> None:
    _log.warning(
        'answers will be slower than the chip allows: all caches are copied at every token, '
        'because driving the chip in place did not give what axengine gives (%s)',
        '; '.join(reasons),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What differs when a way is tried; '' = nothing.

    Attributes:
        in_place: In the first slot: the way does not work.
        slots: With two slots.
    """

    in_place: str = ''
    slots: str = ''


def _try_out(  # noqa: PLR0913 (as `open_in_place`)
    chip: Chip,
    files: ModelFiles,
    shapes: StackShapes,
    rows: RowWriterType,
    talks: list[_Talk],
    *,
    is_card: bool,
) -> _Found:
    """Run a way in place, first in one slot, then in two."""
    first, second = talks
    try:
        with closing(InPlaceBackend(chip, files, shapes, rows)) as backend:
            why = _difference(backend, shapes, first)
            slots = '' if why else _difference_of_slots(backend, shapes, first, second)
            if is_card and not why:  # last: it leaves other rows in the caches
                why = _chunks_differ(backend, shapes)
            return _Found(why, slots)
    except (DeviceError, ModelFileError) as error:
        return _Found(in_place=error.message)


def _difference_of_slots(
    backend: InPlaceBackend, shapes: StackShapes, first: _Talk, second: _Talk
) -> str:
    """Run the second slot, then the last token of the first one again; '' = nothing differs."""
    again = _Talk(first.runs[-1:], first.expected[-1:])
    try:
        backend.select(1)
        why = _difference(backend, shapes, second)
        if not why:
            backend.select(0)
            why = _difference(backend, shapes, again)
    except DeviceError as error:
        return error.message
    return why


def _difference(backend: InPlaceBackend, shapes: StackShapes, talk: _Talk) -> str:
    """Run in place; say what differs, '' = nothing."""
    for i, (run, expected) in enumerate(zip(talk.runs, talk.expected, strict=True)):
        why = _unequal(_logits(backend, run, shapes), expected)
        if why:
            return f'{why} after run {i + 1} of {len(talk.runs)}'
    return ''


def _unequal(found: NDArray[np.float32], expected: NDArray[np.float32]) -> str:
    wrong = np.count_nonzero(found.view(np.uint32) != expected.view(np.uint32))
    if not wrong:
        return ''
    with np.errstate(invalid='ignore'):  # they may be anything
        worst = float(np.max(np.abs(found - expected)))
    return f'{wrong} of {len(expected)} logits differ, by up to {worst:.3g},'


def _logits(backend: LayerBackend, run: _Run, shapes: StackShapes) -> NDArray[np.float32]:
    """Run; give the logits after it."""
    positions = _positions(run.row, len(run.embeds), shapes)
    if isinstance(run.group, PrefillGroup):
        backend.prefill(run.group, run.embeds, positions, run.row, never)
    else:
        backend.step(run.group, run.embeds[0], positions, run.row)
    logits: NDArray[np.float32] = backend.head().copy()
    return logits


def _runs(shapes: StackShapes, seed: int, *, takes_chunks: bool) -> Iterator[_Run]:
    """Give a few whole chunks, if they are to be trusted, then single tokens."""
    random = np.random.default_rng(seed)
    length = 0

    def embeds(tokens: int) -> NDArray[np.uint16]:
        drawn = random.standard_normal((tokens, shapes.hidden), np.float32)
        return to_bf16(drawn * np.float32(_EMBED_SCALE))

    for group, row in _chunks(shapes) if takes_chunks else ():
        yield _Run(group, row, embeds(group.chunk))
        length = row + group.chunk
    for row in range(length, min(length + _STEPS, shapes.capacity)):
        decode = next(group for group in shapes.decode if group.capacity > row)
        yield _Run(decode, row, embeds(1))


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
