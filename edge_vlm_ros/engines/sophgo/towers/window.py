"""Qwen2.5-VL's vision tower: any grid of patches up to a number, most layers in windows.

Patches go in in the order of their windows (112 px, four blocks a side), so that a window is a run
of neighbours and its mask block diagonal. Behind the last layer the tower puts its rows back, by
the index that it is given. Frames of a clip in one launch have windows of their own.

Source: sophgo/LLM-TPU, models/Qwen2_5_VL (vit_process_image, vit_process_video); tpu_mlir,
llm/Qwen2_5VLConverter.py (inputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ConfigFile
from edge_vlm_ros.engines.sophgo.expect import input_of, misfit
from edge_vlm_ros.engines.sophgo.masks import block_mask, patch_mask, patch_positions
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.towers.patch import (
    PatchRunner,
    PatchTower,
    check_patch_mask,
    check_patch_net,
)
from edge_vlm_ros.engines.sophgo.towers.tower import MERGED, PATCH_COLUMNS
from edge_vlm_ros.vision import window_order

_WINDOW_PX = 112
"""`window_size` of the published config.json."""

_WINDOW_BLOCKS = _WINDOW_PX // (2 * 14)
"""Blocks of 2 x 2 patches along a window."""


@dataclass(frozen=True, slots=True)
class WindowTower(PatchTower):
    """Any grid of patches up to a number, with windows."""

    signature: ClassVar[tuple[int, ...]] = (5, 2, PATCH_COLUMNS)
    models: ClassVar = 'Qwen2.5-VL'
    family: ClassVar = 'qwen2_5_vl'

    @classmethod
    def read(cls, net: NetInfo) -> WindowTower:
        """Read it from pixels, positions, both masks and the index; see `Tower.read`."""
        patches = check_patch_net(net)
        full, window = (check_patch_mask(net, i, patches) for i in (2, 3))
        index = input_of(net, 4)
        if window is not full:
            raise misfit(net, input_of(net, 3), full.value, window.value)
        if index.shape != (patches // MERGED,) or index.dtype is not DType.INT32:
            raise misfit(net, index, f'({patches // MERGED},) int32', f'{index.shape}')
        return cls(net.name, patches, full, net.is_dynamic, most_side=0)

    def check(self, vision: ConfigFile) -> None:
        """Refuse a model whose windows are of another size: nothing in the nets tells.

        Args:
            vision: What config.json says of the vision tower; what it lacks is left open.

        Raises:
            ModelFileError: It says so.
        """
        if vision.find_count('window_size') not in {None, _WINDOW_PX}:
            raise vision.error('window_size', f'{_WINDOW_PX}')

    def describe(self) -> str:
        """Say what it is."""
        return f'{PatchTower.describe(self)}, windows of {_WINDOW_PX} px'

    def start(self, runtime: Runtime, half: DType) -> WindowRunner:
        """Bind its net."""
        return WindowRunner(runtime, self, half)


class WindowRunner(PatchRunner):
    """As `PatchRunner`, in the order of the windows."""

    def __init__(self, runtime: Runtime, tower: WindowTower, half: DType) -> None:
        super().__init__(runtime, tower, half)
        self._order: NDArray[np.int32] = np.empty(0, np.int32)
        blocks = (tower.patches // MERGED, MERGED * PATCH_COLUMNS)
        self._ordered: NDArray[np.float32] = np.empty(blocks, np.float32)

    def _send_pixels(self, patches: NDArray[np.float32]) -> None:
        """Send the patches of one launch, window by window."""
        count = len(self._order)
        blocks = patches.reshape(count, MERGED * PATCH_COLUMNS)
        # 'clip' spares numpy a buffered second copy; no index is out of bounds.
        np.take(blocks, self._order, axis=0, out=self._ordered[:count], mode='clip')
        self._inputs[0].write(self._ordered[:count].reshape(-1, PATCH_COLUMNS))

    def _send_grid(self, count: int, height: int, width: int, rows: int) -> None:
        """Send positions, both masks and the index of `count` frames; the net has `rows`."""
        _, positions, full, window, index = self._inputs
        order, lengths = window_order(count, height // 2, width // 2, _WINDOW_BLOCKS)
        places = patch_positions(count, height, width).reshape(-1, MERGED, 2)
        positions.write(places[order].reshape(-1, 2))
        mask = patch_mask(count, height * width, rows, self._tower.mask)
        full.write(mask)  # both are large, and one memory serves them
        window.write(block_mask((MERGED * lengths).tolist(), rows, self._tower.mask, mask))
        back = np.arange(rows // MERGED, dtype=np.int32)  # rows of padding stay where they are
        back[order] = np.arange(len(order), dtype=np.int32)
        index.write(back)
        self._order = order
