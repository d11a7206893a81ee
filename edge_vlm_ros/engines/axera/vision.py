"""The vision tower and projector of a set: for tiles, or for the patches of one grid."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, EdgeVlmError, Spliced, VisionInputs
from edge_vlm_ros.engines.axera.runtime import BFLOAT16, Session
from edge_vlm_ros.engines.axera.set_files import DeclaredSizes
from edge_vlm_ros.engines.axera.vision_shapes import VisionShapes, read_vision
from edge_vlm_ros.engines.bf16 import has_nan, to_bf16
from edge_vlm_ros.engines.checks import check_tiles

_WHITE = 255.0
_COLOURS = 3


class VisionTower(Protocol):
    """Normalised pixels -> feature rows.

    Attributes:
        shapes: What it takes and gives.
    """

    shapes: VisionShapes

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode an image into bfloat16 bit patterns, (tokens, hidden).

        Raises:
            EdgeVlmError: The pixels are not what the tower takes.
            DeviceError: The chip failed, or gave what is not a number.
        """
        ...

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        ...


def open_tower(session: Session, hidden: int, config: DeclaredSizes) -> VisionTower:
    """Read which kind of tower a file holds.

    Older files for tiles, and those for patches, take bytes and normalise inside. What they are
    given is exact all the same: normalised pixels came from 256 levels a channel, and undoing that
    rounds back to the level.

    Args:
        session: The file; owned from here on.
        hidden: Width that the language model wants.
        config: Mean and deviation that the pixels were normalised with.

    Raises:
        ModelFileError: The file is no vision tower, or another model's.
    """
    shapes = read_vision(session, hidden)
    kind = PatchTower if shapes.patches else TileTower
    return kind(session, shapes, config)


class _Tower:
    """What both kinds share."""

    def __init__(self, session: Session, shapes: VisionShapes, config: DeclaredSizes) -> None:
        self._session = session
        self.shapes = shapes
        # In levels of a byte.
        self._mean = np.array(config.mean, np.float32).reshape(_COLOURS, 1) * np.float32(_WHITE)
        self._std = np.array(config.std, np.float32).reshape(_COLOURS, 1) * np.float32(_WHITE)

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        self._session.close()

    def _run(self, values: NDArray[np.float32]) -> list[NDArray[np.uint16]]:
        """Run on normalised (..., colours, values), as the tower has it.

        Returns:
            (rows, hidden) of the features for the prompt, then of those for the first layers.
        """
        group = self._session.groups[0]
        image = group.inputs[0]
        feed = self._feed(values).reshape(image.shape)
        results = self._session.run(0, {image.name: feed})
        places = (self.shapes.output, *self.shapes.deepstack)
        return [self._rows(results[i], group.outputs[i].dtype) for i in places]

    def _rows(self, features: NDArray[Any], dtype: str) -> NDArray[np.uint16]:
        features = features.reshape(-1, self.shapes.width)
        rows: NDArray[np.uint16] = features if dtype == BFLOAT16 else to_bf16(features)
        if has_nan(rows):
            # Such rows would stay in the caches' stale part and poison every later answer.
            raise DeviceError(f'{self._session.path.name}: the features are not numbers (NaN)')
        return rows

    def _feed(self, values: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.uint8]:
        ready: NDArray[np.float32] | NDArray[np.uint8] = values
        if self.shapes.takes_bytes:
            levels = values * self._std
            levels += self._mean
            np.rint(levels, out=levels)
            ready = levels.clip(0, _WHITE, out=levels).astype(np.uint8)
        return ready.swapaxes(-1, -2) if self.shapes.is_channels_last else ready


class TileTower(_Tower):
    """One tile a run, as the files are compiled: (tiles, 3, px, px)."""

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode the tiles one after the other; see `VisionTower.encode`."""
        check_tiles(inputs, self.shapes.tile_px)
        tiles = inputs.pixels.reshape(-1, _COLOURS, self.shapes.tile_px**2)
        return _joined([self._run(tile) for tile in tiles])


class PatchTower(_Tower):
    """All patches of an image, or of one pair of frames, a run: (pairs * patches, values)."""

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode the pairs one after the other; see `VisionTower.encode`."""
        shapes, pairs = self.shapes, inputs.grid[0]
        expected = (pairs * shapes.patches, shapes.patch_values)
        if inputs.pixels.shape != expected or inputs.grid[1:] != shapes.grid:
            raise EdgeVlmError(
                f'pixels have shape {inputs.pixels.shape} in a grid of {inputs.grid}, expected '
                f'{expected} in {shapes.grid}'
            )
        moments = inputs.pixels.reshape(pairs, shapes.patches, _COLOURS, -1)
        return _joined([self._run(moment) for moment in moments])


def _joined(runs: list[list[NDArray[np.uint16]]]) -> Spliced:
    """Put the rows of an image's tiles or moments after each other."""
    rows, *deepstack = (np.concatenate(part) for part in zip(*runs, strict=True))
    return Spliced(rows, tuple(deepstack))
