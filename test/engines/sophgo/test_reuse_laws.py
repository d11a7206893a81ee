"""Whatever the cache held before, a Sophgo chip answers as from an empty one."""

import numpy as np
import pytest
from support.reuse_laws import IdPrompts, Watcher, block_changed, wrong_answers
from support.sophgo import emulator
from support.sophgo.engine_runs import open_fixture
from support.sophgo.reference import cosine

from edge_vlm_ros.core import VisionInputs
from edge_vlm_ros.engines.sophgo.plan import RunCosts

pytestmark = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(300)]

# By the way in which prompts get in, and by what a step costs where a piece costs 1.
BUILDS = {
    'internvl3_static_bf16_bm1684x': 0.2,
    'internvl3_oldhistory_bf16_bm1688': 0.3,
    'internvl3_history_bf16_bm1688': 0.3,
    'internvl3_dynamic_bf16_bm1684x': 0.03,
    'qwen2vl_convert_bf16_bm1688': 0.03,
    'qwen3vl_static_bf16_bm1684x': 0.03,
}

ALIKE = (
    'internvl3_dynamic_bf16_bm1684x',
    'internvl3_oldhistory_bf16_bm1688',
    'qwen3vl_static_bf16_bm1684x',
)
"""Prefill as the static build does it, or as the newer history build does."""


def watched(name, path, step_s, seed):
    """Run the laws; return what is wrong, and tokens shared, reused and asked of each prompt."""
    engine = open_fixture(name, path)
    # What runs took on the emulator says nothing, and must not choose the way.
    engine.plan_by(RunCosts(((engine.limits.context_tokens, step_s),), 1.0))
    axes, tower = engine._position_rows, engine._parts.contract.tower

    def scene(number):
        """Frames in pairs that differ in one block of pixels."""
        random = np.random.default_rng([seed, number // 2])
        if axes == 3:
            patches = random.standard_normal((24, tower.columns)).astype(np.float32)
            patches[: 4 * (number % 2)] *= -1  # the patches of one token
            return VisionInputs(patches, (1, 4, 6), 6, table_side=6)
        pixels = random.standard_normal((1, 3, tower.tile_px, tower.tile_px)).astype(np.float32)
        return VisionInputs(
            block_changed(pixels, number, tower.tile_px // 2), (1, 1, 1), tower.rows
        )

    watcher = Watcher(engine, IdPrompts(28, axes), scene, seed, state=engine.last_hidden)
    asked = watcher.run(14)
    wrong = wrong_answers(engine, asked, is_same, engine.last_hidden)
    engine.close()
    return wrong, [(one.shared, one.reused, len(one.prompt)) for one in asked]


def is_same(told, expected):
    return cosine(told, expected) > 0.999


FORMS = [
    pytest.param(name, marks=pytest.mark.exhaustive if name in ALIKE else ()) for name in BUILDS
]


@pytest.mark.parametrize('name', FORMS)
def test_a_chip_answers_as_from_an_empty_cache(name, bmodel):
    chip = name.rpartition('_')[2]
    arguments = (name, str(bmodel(name)), BUILDS[name], 3)
    wrong, asked = emulator.call(chip, watched, *arguments, time_limit_s=250.0)
    assert wrong == []
    assert any(reused for _, reused, _ in asked)
