"""Whose nets a file holds that this engine does not drive: for messages.

How many inputs a vision tower has does not say it: those of Qwen2.5-VL, of Qwen3-VL in a static
build and of MiniCPM-V 4 all have five.

Source: sophgo/LLM-TPU, models of mid-2026 (names of the nets, shapes of the towers).
"""

from __future__ import annotations

from typing import Final

from edge_vlm_ros.engines.sophgo.nets import NetInfo, Nets

_QWEN2_PATCH: Final = 3 * 2 * 14 * 14
"""Values of a patch of Qwen2-VL and Qwen2.5-VL: colours, frames, rows, columns."""
_QWEN3_PATCH: Final = 3 * 2 * 16 * 16


def likely_model(nets: Nets) -> str:
    """Name the published model that nets look like; '' = none that is known."""
    if 'vit_4x' in nets or 'vit_16x' in nets:
        return 'MiniCPM-V 4.6'
    tower = nets.get('intern_vit') or nets.get('vit')
    if tower is None or not tower.inputs:
        return ''
    shape = tower.inputs[0].shape
    if len(shape) == 2:
        return _of_patches(tower, shape[-1])
    inputs = len(tower.inputs)
    if inputs == 5:
        return 'MiniCPM-V 4'
    is_tiled = len(shape) == 4
    return {1: 'InternVL', 3: 'Llama 3.2 Vision'}.get(inputs, '') if is_tiled else ''


def _of_patches(tower: NetInfo, width: int) -> str:
    inputs, outputs = len(tower.inputs), len(tower.outputs)
    if width == _QWEN2_PATCH:
        return {3: 'Qwen2-VL', 5: 'Qwen2.5-VL'}.get(inputs, 'a Qwen2-VL of another kind')
    if width != _QWEN3_PATCH or inputs not in {4, 5}:
        return ''
    if outputs == 1:
        return 'Qwen3.5'
    return 'Qwen3-VL in a static build' if inputs == 5 else 'Qwen3-VL in a dynamic build'
