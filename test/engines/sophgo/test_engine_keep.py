"""How much of a cached prefix the next prompt keeps: a new frame starts again where it must."""

from dataclasses import replace

import numpy as np
import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import Bench

from edge_vlm_ros.core import VisionSpan, text_part
from edge_vlm_ros.engines.sophgo.plan import StepCosts

pytestmark = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(300)]

STATIC, HISTORY = 'internvl3_static_bf16_bm1688', 'internvl3_history_bf16_bm1688'
ATTENDED = 'mllama_2024_bf16_bm1684x'


def prompt(tokens, *spans):
    return replace(text_part(np.ones(tokens, np.int64), 0), spans=spans)


def kept(name, path):
    """Return what is kept of 10 tokens: before a word, 5, 40 and too many, and before a frame."""
    bench = Bench(name, path)
    engine = bench.engine
    whole = engine.limits.context_tokens
    found = []
    for costs in (StepCosts(), StepCosts(piece_s=1.0, step_s=0.1)):
        engine._costs = costs
        found.append([engine.usable_prefix(10, prompt(10 + rest)) for rest in (1, 5, 40, whole)])
    frame = prompt(30, VisionSpan(0, 12, 13))
    engine._costs = StepCosts()
    found.append([engine.usable_prefix(10, frame), engine.usable_prefix(13, frame)])
    engine.close()
    return found


def call(name, bmodel):
    chip = name.rpartition('_')[2]
    return emulator.call(chip, kept, name, str(bmodel(name)), time_limit_s=200.0)


def test_a_static_build_starts_again_where_steps_would_cost_more(bmodel):
    assert call(STATIC, bmodel) == [[10, 10, 0, 10], [10, 10, 0, 10], [10, 13]]


def test_a_build_with_history_goes_on(bmodel):
    assert call(HISTORY, bmodel) == [[10, 10, 10, 10], [10, 10, 10, 10], [10, 13]]


def test_an_image_to_attend_to_comes_into_an_empty_cache(bmodel):
    *_, (before, behind) = call(ATTENDED, bmodel)
    assert (before, behind) == (0, 13)


def two_questions(name, path):
    """Ask about one image, then about another, as two cameras' frames come."""
    bench = Bench(name, path)
    first = bench._one_image()
    bench._prefill(first, 0, 'first')
    # The second prompt begins with the same words; its image is another one.
    second = bench._talk()
    bench._say(second, 2)
    bench._show(second, 1)
    bench._say(second, 3)
    whole = second.part(0, len(second.ids))
    at = bench.engine.usable_prefix(1, whole)
    bench.engine.kv.truncate(at)
    bench._prefill(second, at, 'second')
    bench._compare(second, 'second')
    bench.engine.close()
    return at, bench.points


def test_the_second_question_about_a_new_image_is_answered(bmodel):
    at, points = emulator.call(
        'bm1684x', two_questions, ATTENDED, str(bmodel(ATTENDED)), time_limit_s=200.0
    )
    assert at == 0
    assert points[-1].cosine >= 0.999
