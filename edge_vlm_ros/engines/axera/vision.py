"""The vision tower and projector of a set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.engines.axera.graphs import VisionShapes, read_vision
from edge_vlm_ros.engines.axera.runtime import BFLOAT16, Session
from edge_vlm_ros.engines.axera.set_files import DeclaredSizes
from edge_vlm_ros.engines.bf16 import has_nan, to_bf16

_WHITE = 255.0


class VisionTower:
    """Normalised pixels -> feature rows, one tile a run as the files are compiled.

    Older vision files take bytes and normalise inside. What they are given is exact all the same:
    normalised pixels came from 256 levels a channel, and undoing that rounds back to the level.

    Args:
        session: The file; owned from here on.
        hidden: Width that the language model wants.
        config: Mean and deviation that the pixels were normalised with.

    Raises:
        ModelFileError: The file is no vision tower, or another model's.
    """

    def __init__(self, session: Session, hidden: int, config: DeclaredSizes) -> None:
        self._session = session
        self.shapes: VisionShapes = read_vision(session, hidden)
        """What it takes and gives."""
        self._mean = np.array(config.mean, np.float32).reshape(3, 1, 1)
        self._std = np.array(config.std, np.float32).reshape(3, 1, 1)

    def encode(self, pixels: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Encode (tiles, 3, px, px) into bfloat16 bit patterns, (tiles * rows, hidden).

        Raises:
            DeviceError: The chip failed, or gave what is not a number.
        """
        rows = np.concatenate([self._encode_tile(tile) for tile in pixels])
        if has_nan(rows):
            # Such rows would stay in the caches' stale part and poison every later answer.
            raise DeviceError(f'{self._session.path.name}: the features are not numbers (NaN)')
        return rows

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        self._session.close()

    def _encode_tile(self, tile: NDArray[np.float32]) -> NDArray[np.uint16]:
        group = self._session.groups[0]
        image = group.inputs[0]
        feed = self._feed(tile).reshape(image.shape)
        features = self._session.run(0, {image.name: feed})[self.shapes.output]
        features = features.reshape(-1, self.shapes.width)
        is_bf16 = group.outputs[self.shapes.output].dtype == BFLOAT16
        return features if is_bf16 else to_bf16(features)

    def _feed(self, tile: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.uint8]:
        ready: NDArray[np.float32] | NDArray[np.uint8] = tile
        if self.shapes.takes_bytes:
            levels = np.rint((tile * self._std + self._mean) * np.float32(_WHITE))
            ready = levels.clip(0, _WHITE).astype(np.uint8)
        return ready.transpose(1, 2, 0) if self.shapes.is_channels_last else ready
