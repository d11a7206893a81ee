"""What the host does for a frame before the vision tower runs: successors beside Qwen2-VL.

Resizing, normalising and cutting a 1080p frame, or eight of them, and all that the runner of the
tower on Sophgo chips does: order, positions, masks, copies to the chip and rows back. The chip's
memory is memory of the host here, and a launch takes no time. Sizes are those of the published
builds (672 x 896 px).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.figure import Figure
from tools.bench.timing import pairs_of

_PIXELS = 672 * 896
_HIDDEN = 2048
_CONTEXT = 2048
_FRAMES = 8
_ROUNDS = 15
_MODEL = 'qwen2_vl'
_MODELS = (_MODEL, 'qwen2_5_vl', 'qwen3_vl')
_DEEPSTACK = 3


def measure() -> Iterator[Figure]:
    """Time each successor and Qwen2-VL in turn."""
    with tempfile.TemporaryDirectory(prefix='edge_vlm_bench_') as folder:
        work = {model: _Host(model, Path(folder) / model) for model in _MODELS}
        for model, host in work.items():
            if model == _MODEL:
                continue
            base = work[_MODEL]
            yield _figure(f'{model}_host_work_a_frame', host.image, base.image)
            yield _figure(f'{model}_host_work_a_clip', host.clip, base.clip)
            # Masks and positions are made anew.
            yield _figure(f'{model}_host_work_another_size', host.another, base.another, goal='')


def _figure(
    name: str,
    ours: Callable[[], object],
    plain: Callable[[], object],
    goal: str = 'ratio <= 1.2',
) -> Figure:
    pairs = pairs_of(ours, plain, rounds=_ROUNDS)
    return Figure(
        name,
        pairs.value_s * 1e3,
        'ms',
        pairs.baseline_s * 1e3,
        'the same of Qwen2-VL',
        pairs.cost,
        goal,
    )


class _Host:
    """One model's family and the runner of its tower.

    Args:
        model: A `model_type`.
        folder: For its texts.
    """

    def __init__(self, model: str, folder: Path) -> None:
        from support.families import limits

        from edge_vlm_ros.core import ModelConfig
        from edge_vlm_ros.engines.sophgo.nets import DType
        from edge_vlm_ros.families import read_family
        from tools.bench.sophgo.host_memory import HostRuntime

        layers = _DEEPSTACK if model == 'qwen3_vl' else 0
        write = _write_qwen3_texts if layers else _write_texts
        write(folder, model)
        tower, net = _tower(model)
        bounds = tower.limit(
            limits(context_tokens=_CONTEXT, longest_prompt=_CONTEXT, deepstack_layers=layers)
        )
        self._family = read_family(ModelConfig(folder)).bound_by(bounds)
        runtime: Any = HostRuntime(net)  # as much of a runtime as a tower asks for
        self._runner = tower.start(runtime, DType.BFLOAT16)
        self._frames = [_frame(seed) for seed in range(_FRAMES)]
        self._upright = [self._frames[0], _frame(0, upright=True)]

    def image(self) -> None:
        """Make one image ready and bring it through the tower."""
        self._runner.encode(self._family.preprocess(self._frames[0]))

    def clip(self) -> None:
        """Do so with eight frames of a clip."""
        step = self._family.frames_per_input
        for start in range(0, _FRAMES, step):
            inputs = self._family.preprocess_clip(self._frames[start : start + step])
            self._runner.encode(inputs)

    def another(self) -> None:
        """Do so with an image of another size than the one before it."""
        self._upright.reverse()
        self._runner.encode(self._family.preprocess(self._upright[0]))


def _tower(model: str) -> tuple[Any, Any]:
    """Describe a model's published tower and its net."""
    from edge_vlm_ros.engines.sophgo.towers.deepstack import StaticDeepstackTower
    from edge_vlm_ros.engines.sophgo.towers.patch import PatchTower
    from edge_vlm_ros.engines.sophgo.towers.window import WindowTower
    from tools.bench.sophgo.host_memory import deepstack_net, tower_net

    if model == 'qwen3_vl':
        net = deepstack_net(_PIXELS // 16**2, _DEEPSTACK, _HIDDEN)
        return StaticDeepstackTower.read(net), net
    windows = model == 'qwen2_5_vl'
    net = tower_net(_PIXELS // 14**2, 2 if windows else 1, _HIDDEN)
    return (WindowTower if windows else PatchTower).read(net), net


def _write_texts(folder: Path, model: str) -> None:
    from support.tiny_model.qwen2_vl import TinyQwen2Vl, write_texts

    write_texts(folder, TinyQwen2Vl(model_type=model))


def _write_qwen3_texts(folder: Path, model: str) -> None:
    from support.sophgo.fixtures import FOLDER

    shutil.copytree(FOLDER / 'config' / model.replace('_', ''), folder)


def _frame(seed: int, *, upright: bool = False) -> Any:
    from edge_vlm_ros.core import Frame, FrameSource

    pixels = np.random.default_rng(seed).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    pixels = np.ascontiguousarray(pixels.swapaxes(0, 1)) if upright else pixels
    return Frame(pixels, seed * 500_000_000, FrameSource('front'))
