"""Whatever the cache held before, an Axera chip answers as from an empty one: both ways to drive
it, whatever its costs make of a prompt."""

import numpy as np
import pytest
from support.axera.prompts import picture
from support.axera.sets import CLIP_DEVIATION, CLIP_MEAN
from support.reuse_laws import IdPrompts, Watcher, block_changed, wrong_answers

from edge_vlm_ros.core import VisionInputs
from edge_vlm_ros.engines.axera.costs import GroupCosts
from edge_vlm_ros.engines.axera.plan import Planner

pytestmark = pytest.mark.axera

NOISE = 0.06
"""What rounding to bfloat16 may move a score, in standard deviations of the scores."""

STEP_MS = {'steps are dear': 100.0, 'as on a board': 2.0, 'steps are cheap': 0.1}
OF_PATCHES = 'tiny-qwen2_5-vl'
LAYOUTS = ['tiny', 'tiny-irregular', 'tiny-decode-groups', OF_PATCHES]
CASES = [
    (layout, step_ms)
    for layout in LAYOUTS
    for step_ms in STEP_MS
    if layout != OF_PATCHES or step_ms == 'as on a board'
]


def scene(number):
    """Frames in pairs that differ in one block of pixels."""
    pixels = picture(number // 2).pixels
    return VisionInputs(block_changed(pixels, number, 14), (1, 1, 1), 4)


def patches(number):
    """Images of 8 x 8 patches in pairs that differ in the patches of one token."""
    levels = np.random.default_rng(number // 2).integers(0, 256, (64, 3, 392))
    levels[: 4 * (number % 2)] = 255 - levels[: 4 * (number % 2)]
    scaled = (levels / 255 - CLIP_MEAN[:, None]) / CLIP_DEVIATION[:, None]
    return VisionInputs(scaled.reshape(64, -1).astype(np.float32), (1, 8, 8), 16)


def is_close(told, expected):
    return np.abs(told - expected).max() < NOISE * expected.std()


def is_sure(expected):
    second, first = np.sort(expected)[-2:]
    return first - second > 2 * NOISE * expected.std()


@pytest.mark.parametrize(('layout', 'step_ms'), CASES)
def test_a_chip_answers_as_from_an_empty_cache(open_set, layout, step_ms):
    engine = open_set(layout, kv_slots=2)
    shapes = engine._shapes
    # Not what the stub took: the way must not depend on how busy this machine is.
    prefill = {group.index: 8.0 + group.history / 8 for group in shapes.prefill}
    decode = {group.index: STEP_MS[step_ms] + group.index for group in shapes.decode}
    engine._planner = Planner(shapes, GroupCosts(prefill, decode))
    seed = LAYOUTS.index(layout)
    axes = shapes.position_rows
    prompts, shown = IdPrompts(200, axes), patches if axes > 1 else scene
    asked = Watcher(engine, prompts, shown, seed).run(40)
    assert wrong_answers(engine, asked, is_close, is_sure=is_sure) == []
    assert any(one.reused for one in asked)
    if (layout, step_ms) == ('tiny', 'steps are dear'):
        cut = [one for one in asked if 0 < one.reused < min(one.shared, len(one.prompt) - 1)]
        assert cut, 'tails are run again from the border of a chunk'
        assert all(one.reused % 16 == 0 for one in cut)
