"""How much of a cached prefix the next prompt keeps: a new frame starts again where it must."""

from dataclasses import replace

import numpy as np
import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import Bench

from edge_vlm_ros.core import VisionSpan, text_part
from edge_vlm_ros.engines.sophgo.plan import RunCosts

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
    for run_s in (2.0, 0.3):
        engine.plan_by(RunCosts(((whole, 0.1),), run_s))
        found.append([engine.usable_prefix(10, prompt(10 + rest)) for rest in (1, 5, 40, whole)])
    engine.plan_by(RunCosts(((whole, 0.1),), 2.5))
    frame = prompt(30, VisionSpan(0, 12, 13))
    found.append([engine.usable_prefix(10, frame), engine.usable_prefix(13, frame)])
    # An image that a new start would have to encode again.
    shown = prompt(40, VisionSpan(0, 2, 8))
    engine.plan_by(RunCosts(((whole, 0.1),), 2.0))
    engine._encode_s = 1.5
    found.append([engine.usable_prefix(10, shown, at_hand) for at_hand in (None, (), {0})])
    engine.close()
    return found


def call(name, bmodel):
    chip = name.rpartition('_')[2]
    return emulator.call(chip, kept, name, str(bmodel(name)), time_limit_s=200.0)


def test_a_static_build_starts_again_where_steps_would_cost_more(bmodel):
    found = call(STATIC, bmodel)
    assert found[:3] == [[10, 10, 0, 10], [10, 0, 0, 10], [10, 13]]
    assert found[3] == [0, 10, 0], 'and an image that is to be encoded again'


def test_a_build_with_history_goes_on(bmodel):
    assert call(HISTORY, bmodel) == [[10, 10, 10, 10], [10, 10, 10, 10], [10, 13], [10, 10, 10]]


def test_an_image_to_attend_to_comes_into_an_empty_cache(bmodel):
    before, behind = call(ATTENDED, bmodel)[2]
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
