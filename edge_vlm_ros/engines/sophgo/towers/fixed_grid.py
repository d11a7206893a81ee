"""Qwen2-VL's vision tower of November 2024: one grid of patches, with positions inside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from edge_vlm_ros.core import EdgeVlmError, EngineLimits, Spliced, VisionInputs
from edge_vlm_ros.engines.sophgo.expect import input_of, misfit
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.towers.tower import (
    MERGED,
    PATCH_COLUMNS,
    Features,
    check_patches,
    make_input,
)

_GRIDS = MappingProxyType({600: (20, 30)})
"""Rows and columns by patches, of towers with one grid inside: the net tells only how many."""


@dataclass(frozen=True, slots=True)
class FixedGridTower:
    """One grid, four patches to a row.

    Attributes:
        net: 'vit'.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
    """

    net: str
    rows: int
    columns: int

    signature: ClassVar[tuple[int, ...]] = (1, 2)
    models: ClassVar = 'Qwen2-VL of one grid'
    family: ClassVar = 'qwen2_vl'
    is_attended: ClassVar = False

    @classmethod
    def read(cls, net: NetInfo) -> FixedGridTower:
        """Read it from (patches, 1176); see `Tower.read`."""
        pixels = input_of(net, 0)
        patches, columns = pixels.shape
        if columns != PATCH_COLUMNS or patches not in _GRIDS:
            known = ' or '.join(f'({n}, {PATCH_COLUMNS})' for n in _GRIDS)
            raise misfit(net, pixels, known, f'{pixels.shape}')
        return cls(net.name, *_GRIDS[patches])

    def limit(self, limits: EngineLimits) -> EngineLimits:
        """Bound images to the one grid."""
        return replace(limits, patch_grid=(self.rows, self.columns))

    def describe(self) -> str:
        """Say what it is."""
        return f'{self.net}: {self.rows} x {self.columns} patches'

    def start(self, runtime: Runtime, half: DType) -> FixedGridRunner:
        """Bind its net."""
        return FixedGridRunner(runtime, self, half)


class FixedGridRunner:
    """One launch an image."""

    def __init__(self, runtime: Runtime, tower: FixedGridTower, half: DType) -> None:
        self._tower = tower
        self._pixels = make_input(runtime, tower.net, 0)
        self._features = Features(runtime, tower.net, half)
        self._launch = Launch(runtime, tower.net, [self._pixels], [self._features.tensor])

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode (rows * columns, 1176) of the one grid."""
        expected = (1, self._tower.rows, self._tower.columns)
        if inputs.grid != expected:
            raise EdgeVlmError(f'the image has {inputs.grid} patches, expected {expected}')
        check_patches(inputs)
        self._pixels.write(inputs.pixels)
        self._launch.run()
        return Spliced(self._features.read(self._tower.rows * self._tower.columns // MERGED))
