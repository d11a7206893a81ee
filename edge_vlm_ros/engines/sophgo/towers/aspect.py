"""Llama 3.2 Vision's tower: a canvas of tiles, projected for the cross-attention layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import numpy as np

from edge_vlm_ros.core import CrossAttended, EdgeVlmError, EngineLimits, VisionInputs
from edge_vlm_ros.engines.sophgo.expect import expect_dtype, input_of, misfit, output_of
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.towers.tower import Features, make_input
from edge_vlm_ros.vision import aspect_ratio_id, aspect_ratio_mask


@dataclass(frozen=True, slots=True)
class AspectTower:
    """A canvas of tiles, whose features layers attend to.

    Attributes:
        net: 'vit'.
        tiles: Tiles of one launch, padding among them.
        tile_px: Side of a tile.
        rows: Feature rows of a tile.
    """

    net: str
    tiles: int
    tile_px: int
    rows: int

    signature: ClassVar[tuple[int, ...]] = (3, 4)
    models: ClassVar = 'Llama 3.2 Vision'
    family: ClassVar = 'mllama'
    is_attended: ClassVar = True

    @classmethod
    def read(cls, net: NetInfo) -> AspectTower:
        """Read it from pixels, aspect ratio id and mask; see `Tower.read`."""
        pixels, features = input_of(net, 0), output_of(net, 0)
        tiles, colours, height, width = pixels.shape
        if colours != 3 or height != width:
            raise misfit(net, pixels, '(tiles, 3, px, px)', f'{pixels.shape}')
        identity, used = input_of(net, 1), input_of(net, 2)
        expect_dtype(net, identity, DType.INT32)
        expect_dtype(net, used, DType.INT32)
        if prod(identity.shape) != 1:
            raise misfit(net, identity, 'one number', f'{identity.shape}')
        if prod(used.shape) != tiles:
            raise misfit(net, used, f'{tiles} numbers', f'{used.shape}')
        rows = prod(features.shape[:-1])
        if rows % tiles:
            raise misfit(net, features, f'rows of {tiles} tiles', f'{features.shape}')
        return cls(net.name, tiles, width, rows // tiles)

    def limit(self, limits: EngineLimits) -> EngineLimits:
        """Bound images to the one that the layers can attend to, and its tiles."""
        return replace(limits, max_images=1, tile_px=self.tile_px, tiles_per_frame=self.tiles)

    def describe(self) -> str:
        """Say what it is."""
        return f'{self.net}: {self.tiles} tiles of {self.tile_px} px, {self.rows} rows each'

    def start(self, runtime: Runtime, half: DType) -> AspectRunner:
        """Bind its net."""
        return AspectRunner(runtime, self, half)


class AspectRunner:
    """One launch a canvas."""

    def __init__(self, runtime: Runtime, tower: AspectTower, half: DType) -> None:
        self._tower = tower
        self._inputs = [make_input(runtime, tower.net, i) for i in range(3)]
        self._features = Features(runtime, tower.net, half)
        self._launch = Launch(runtime, tower.net, self._inputs, [self._features.tensor])

    def encode(self, inputs: VisionInputs) -> CrossAttended:
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
