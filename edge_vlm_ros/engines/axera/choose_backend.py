"""Which way the decoder layers of a set are driven."""

from __future__ import annotations

import logging
from pathlib import Path

from edge_vlm_ros.core import DeviceError, ModelFiles
from edge_vlm_ros.engines.axera.backend import LayerBackend, OnFile
from edge_vlm_ros.engines.axera.board import Board
from edge_vlm_ros.engines.axera.card import Card
from edge_vlm_ros.engines.axera.card_library import CardLibrary
from edge_vlm_ros.engines.axera.chip import Chip
from edge_vlm_ros.engines.axera.graphs import StackShapes
from edge_vlm_ros.engines.axera.library import Library
from edge_vlm_ros.engines.axera.portable import PortableBackend
from edge_vlm_ros.engines.axera.runtime import Device, OpenSession, Session
from edge_vlm_ros.engines.axera.self_test import find_stale_chunks, open_in_place

_log = logging.getLogger(__name__)


class OpenedSessions:
    """Sessions that were opened to look into a file, until somebody needs them.

    Loading a file takes a second on a board, so it is not done twice.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kept: dict[Path, Session] = {}

    def look_into(self, path: Path) -> Session:
        """Open a file and keep it; see `Session` for errors."""
        if path not in self._kept:
            self._kept[path] = Session(self._device, path)
        return self._kept[path]

    def look_into_tower(self, path: Path) -> Session:
        """Open the vision tower, which comes first and fills no chip: no file counts as loaded."""
        session = self.look_into(path)
        self._device.loaded.clear()
        return session

    def take(self, path: Path) -> Session:
        """Give a file's session, the caller's from here on."""
        return self._kept.pop(path, None) or Session(self._device, path)

    def close(self) -> None:
        """Close what nobody took; safe to call twice."""
        while self._kept:
            _, session = self._kept.popitem()
            session.close()


def choose_backend(  # noqa: PLR0913 (what a set is made of)
    wanted: str,
    *,
    device: Device,
    open_session: OpenSession,
    files: ModelFiles,
    shapes: StackShapes,
    on_file: OnFile,
) -> LayerBackend:
    """Open the decoder layers and the head, in place where that works.

    Args:
        wanted: 'auto', 'in_place' or 'portable'.
        device: Where.
        open_session: Opens a file through axengine.
        files: Of the set.
        shapes: Of the set.
        on_file: Called after each file is loaded.

    Raises:
        ModelFileError: A file is missing, refused or of another build.
        DeviceError: The chip failed or is full, or `wanted` cannot be had.
    """

    def open_portable(some: StackShapes) -> PortableBackend:
        return PortableBackend(open_session, files, some)

    def open_chip() -> Chip:
        library = Library() if device.index is None else CardLibrary()
        library.before_file = device.before_file
        if isinstance(library, Library):
            return Board(library)
        return Card(library, device.index or 0)

    stale = ''
    if wanted != 'portable':
        is_card = device.is_card
        trial = open_in_place(files, shapes, open_portable, open_chip, on_file, is_card=is_card)
        if trial.backend is not None:
            return trial.backend
        if wanted == 'in_place':
            raise DeviceError(
                'backend in_place was asked for and does not work here, the log says why'
            )
        stale = trial.stale
    elif device.is_card:
        stale = find_stale_chunks(open_portable, shapes)
    if stale and shapes.steps_words_only:
        raise DeviceError(
            f'card {device.index}: {stale}, and the single steps of this build take no images'
        )
    backend = PortableBackend(open_session, files, shapes, on_file)
    if stale:
        backend.takes_chunks = False
        _log.warning('card %s: prompts go in token by token, slowly: %s', device.index, stale)
    return backend


def tell_copies(device: Device, backend: LayerBackend, decode_ms: float) -> None:
    """Say what a token costs on a card whose caches are copied to it.

    Args:
        device: Where.
        backend: As opened.
        decode_ms: Measured for all layers and one token.
    """
    if device.is_card and isinstance(backend, PortableBackend):
        _log.info(
            'card %s, backend %s: the caches are copied to the card for every token, which makes '
            '%.1f ms per token for the decoder layers (measured now)',
            device.index,
            backend.name,
            decode_ms,
        )
