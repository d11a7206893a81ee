"""Vision towers: one class for each way in which they are compiled."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    BadRequestError,
    CrossAttended,
    EdgeVlmError,
    PromptTooLongError,
    Spliced,
    VisionFeatures,
    VisionInputs,
)
from edge_vlm_ros.engines.checks import check_tiles
from edge_vlm_ros.engines.sophgo.graphs import (
    PATCH_COLUMNS,
    AspectTower,
    FixedGridTower,
    PatchTower,
    TileTower,
    VisionTower,
)
from edge_vlm_ros.engines.sophgo.masks import from_host, patch_mask, patch_positions, to_half
from edge_vlm_ros.engines.sophgo.nets import DType
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor
from edge_vlm_ros.vision import aspect_ratio_id, aspect_ratio_mask

_MERGED = 4
"""Patches that become one feature row."""


class Tower(Protocol):
    """The nets that make features of an image."""

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run the vision tower on one image.

        Raises:
            EdgeVlmError: The pixels are not what the tower takes.
            DeviceError: The chip failed.
        """
        ...


class TileRunner:
    """InternVL: one launch a tile."""

    def __init__(self, runtime: Runtime, tower: TileTower, half: DType) -> None:
        self._tower = tower
        self._pixels = _make_input(runtime, tower.net, 0)
        self._features = _Features(runtime, tower.net, half)
        self._launch = Launch(runtime, tower.net, [self._pixels], [self._features.tensor])

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Encode (tiles, 3, px, px), tile by tile."""
        check_tiles(inputs, self._tower.tile_px)
        return Spliced(np.concatenate([self._encode_tile(tile) for tile in inputs.pixels]))

    def _encode_tile(self, tile: NDArray[np.float32]) -> NDArray[Any]:
        self._pixels.write(tile)
        self._launch.run()
        return self._features.read(self._tower.rows)


class PatchRunner:
    """Qwen2-VL: any grid, padded to the tower's patches; frames see only themselves.

    Padding is hidden from the image's patches. Frames of a clip are encoded in as few launches as
    the tower's patches allow.
    """

    def __init__(self, runtime: Runtime, tower: PatchTower, half: DType) -> None:
        self._runtime = runtime
        self._tower = tower
        self._pixels = _make_input(runtime, tower.net, 0)
        self._positions = _make_input(runtime, tower.net, 1)
        self._mask = _make_input(runtime, tower.net, 2)
        self._features = _Features(runtime, tower.net, half)
        self._sent: tuple[int, int, int] | None = None

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Encode (time * height * width, 1176)."""
        time, height, width = inputs.grid
        each = height * width
        _check_patches(inputs)
        most = self._tower.most_side
        if most and max(height, width) > most:
            raise BadRequestError(
                f'the image has {height} x {width} patches, the vision tower takes {most} a side'
            )
        together = self._tower.patches // each
        if not together:
            raise PromptTooLongError(
                f'the image has {each} patches, the vision tower takes {self._tower.patches}'
            )
        rows = []
        for start in range(0, time, together):
            count = min(together, time - start)
            patches = inputs.pixels[start * each : (start + count) * each]
            rows.append(self._encode_frames(patches, count, height, width))
        return Spliced(np.concatenate(rows))

    def _encode_frames(
        self, patches: NDArray[np.float32], count: int, height: int, width: int
    ) -> NDArray[Any]:
        used = len(patches)
        self._send_grid(count, height, width)
        self._pixels.write(patches)
        pixels, positions, mask = self._pixels, self._positions, self._mask
        if self._tower.is_dynamic:
            pixels = pixels.shorter((used, PATCH_COLUMNS), pixels.size)
            positions = positions.shorter((used, 2), positions.size)
            mask = mask.shorter((*mask.shape[:-2], used, used), mask.size)
        net = self._tower.net
        self._runtime.launch(net, [pixels, positions, mask], [self._features.tensor])
        return self._features.read(used // _MERGED)

    def _send_grid(self, count: int, height: int, width: int) -> None:
        """Send mask and positions, unless the last image had the same grid."""
        grid = (count, height, width)
        if grid == self._sent:
            return
        self._sent = None
        rows = count * height * width if self._tower.is_dynamic else self._tower.patches
        self._positions.write(patch_positions(count, height, width))
        self._mask.write(patch_mask(count, height * width, rows, self._tower.mask))
        self._sent = grid


class FixedGridRunner:
    """Qwen2-VL of November 2024: one grid, with positions inside."""

    def __init__(self, runtime: Runtime, tower: FixedGridTower, half: DType) -> None:
        self._tower = tower
        self._pixels = _make_input(runtime, tower.net, 0)
        self._features = _Features(runtime, tower.net, half)
        self._launch = Launch(runtime, tower.net, [self._pixels], [self._features.tensor])

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Encode (rows * columns, 1176) of the one grid."""
        expected = (1, self._tower.rows, self._tower.columns)
        if inputs.grid != expected:
            raise EdgeVlmError(f'the image has {inputs.grid} patches, expected {expected}')
        _check_patches(inputs)
        rows = self._tower.rows * self._tower.columns // _MERGED
        self._pixels.write(inputs.pixels)
        self._launch.run()
        return Spliced(self._features.read(rows))


class AspectRunner:
    """Llama 3.2 Vision: a canvas of tiles in one launch."""

    def __init__(self, runtime: Runtime, tower: AspectTower, half: DType) -> None:
        self._tower = tower
        self._inputs = [_make_input(runtime, tower.net, i) for i in range(3)]
        self._features = _Features(runtime, tower.net, half)
        self._launch = Launch(runtime, tower.net, self._inputs, [self._features.tensor])

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Encode (tiles, 3, px, px), padding tiles among them."""
        tower = self._tower
        expected = (tower.tiles, 3, tower.tile_px, tower.tile_px)
        if inputs.pixels.shape != expected:
            raise EdgeVlmError(f'pixels have shape {inputs.pixels.shape}, expected {expected}')
        _, rows, columns = inputs.grid
        tiles = rows * columns
        if tiles > tower.tiles:
            raise EdgeVlmError(f'the image has {tiles} tiles, the vision tower {tower.tiles}')
        pixels, identity, mask = self._inputs
        pixels.write(inputs.pixels)
        identity.write(np.array([aspect_ratio_id(rows, columns, tower.tiles)], np.int32))
        mask.write(aspect_ratio_mask(rows, columns, tower.tiles))
        self._launch.run()
        states = self._features.read(tower.tiles * tower.rows)
        return CrossAttended(states, tiles * tower.rows)


def make_tower(runtime: Runtime, tower: VisionTower, half: DType) -> Tower:
    """Bind the nets of a vision tower."""
    if isinstance(tower, TileTower):
        return TileRunner(runtime, tower, half)
    if isinstance(tower, PatchTower):
        return PatchRunner(runtime, tower, half)
    if isinstance(tower, FixedGridTower):
        return FixedGridRunner(runtime, tower, half)
    return AspectRunner(runtime, tower, half)


class _Features:
    """A tower's output, read in the language model's half type."""

    def __init__(self, runtime: Runtime, net: str, half: DType) -> None:
        info = runtime.nets[net].outputs[0]
        self._half = half
        self.tensor = runtime.allocate(info.shape, info.dtype)

    def read(self, rows: int) -> NDArray[Any]:
        """Read the first rows: (rows, hidden), bfloat16 as uint16 bits, float16 as float16."""
        width = self.tensor.shape[-1]
        values = self.tensor.read(rows * width)
        if self.tensor.dtype is not self._half:
            values = to_half(from_host(values, self.tensor.dtype), self._half)
        if self._half is DType.FLOAT16:
            values = values.view(np.float16)
        return values.reshape(rows, width)


def _make_input(runtime: Runtime, net: str, index: int) -> DeviceTensor:
    info = runtime.nets[net].inputs[index]
    return runtime.allocate(info.shape, info.dtype)


def _check_patches(inputs: VisionInputs) -> None:
    time, height, width = inputs.grid
    expected = (time * height * width, PATCH_COLUMNS)
    if inputs.pixels.shape != expected or height % 2 or width % 2:
        raise EdgeVlmError(
            f'pixels have shape {inputs.pixels.shape}, the grid {inputs.grid} wants {expected} '
            'with even sides'
        )
