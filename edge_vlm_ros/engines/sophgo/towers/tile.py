"""InternVL's vision tower: one square tile, some rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import EngineLimits, Spliced, VisionInputs
from edge_vlm_ros.engines.checks import check_tiles
from edge_vlm_ros.engines.sophgo.expect import input_of, misfit, output_of
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.towers.tower import Features, make_input

_MOST_TILES = 4
"""Tiles of one frame at most, as in the vendor's InternVL program; each costs a vision run."""


@dataclass(frozen=True, slots=True)
class TileTower:
    """One square tile, some rows.

    Attributes:
        net: 'vit' or, in InternVL2, 'intern_vit'.
        tile_px: Side of the tile.
        rows: Feature rows of a tile.
    """

    net: str
    tile_px: int
    rows: int

    signature: ClassVar[tuple[int, ...]] = (1, 4)
    models: ClassVar = 'InternVL'
    family: ClassVar = 'internvl'
    is_attended: ClassVar = False

    @classmethod
    def read(cls, net: NetInfo) -> TileTower:
        """Read it from (1, 3, px, px); see `Tower.read`."""
        pixels, features = input_of(net, 0), output_of(net, 0)
        tiles, colours, height, width = pixels.shape
        if (tiles, colours) != (1, 3) or height != width:
            raise misfit(net, pixels, '(1, 3, px, px)', f'{pixels.shape}')
        return cls(net.name, width, prod(features.shape[:-1]))

    def limit(self, limits: EngineLimits) -> EngineLimits:
        """Bound tiles, so that a quarter of the context is left for words.

        Of a frame cut into tiles, the thumbnail counts, too.
        """
        fitting = limits.context_tokens * 3 // 4 // self.rows
        return replace(
            limits,
            max_images=max(1, fitting),
            tile_px=self.tile_px,
            tiles_per_frame=min(_MOST_TILES, max(1, fitting - 1)),
        )

    def describe(self) -> str:
        """Say what it is."""
        return f'{self.net}: tiles of {self.tile_px} px, {self.rows} tokens each'

    def start(self, runtime: Runtime, half: DType) -> TileRunner:
        """Bind its net."""
        return TileRunner(runtime, self, half)


class TileRunner:
    """One launch a tile."""

    def __init__(self, runtime: Runtime, tower: TileTower, half: DType) -> None:
        self._tower = tower
        self._pixels = make_input(runtime, tower.net, 0)
        self._features = Features(runtime, tower.net, half)
        self._launch = Launch(runtime, tower.net, [self._pixels], [self._features.tensor])

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode (tiles, 3, px, px), tile by tile."""
        check_tiles(inputs, self._tower.tile_px)
        return Spliced(np.concatenate([self._encode_tile(tile) for tile in inputs.pixels]))

    def _encode_tile(self, tile: NDArray[np.float32]) -> NDArray[Any]:
        self._pixels.write(tile)
        self._launch.run()
        return self._features.read(self._tower.rows)
