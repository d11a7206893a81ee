"""Whatever the cache held before: answers are those of a prompt that is prefilled at once.

Frames watched ahead, questions, second turns, restarts, cuts, prefills given up, slots by turns:
at random. Axera and Sophgo have theirs in their folders.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.families import load_family
from support.reuse_laws import FamilyPrompts, IdPrompts, Watcher, block_changed, wrong_answers
from support.tiny_model.prompts import random_inputs

from edge_vlm_ros.core import VisionInputs
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.scripted.engine import ScriptedEngine
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving.kv_record import KvRecord

STEPS = 40


def scene(px, rows, seed=0):
    """Frames in pairs that differ in one block of pixels."""

    def frame(number):
        pixels = random_inputs(seed + number // 2, px=px, rows=rows).pixels
        return VisionInputs(block_changed(pixels, number, px // 4), (1, 1, 1), rows)

    return frame


def is_close(told, expected):
    """Up to float32's rounding, of scores of a few units."""
    return np.allclose(told, expected, atol=1e-3)


@pytest.fixture(scope='module')
def tiny(tiny_files):
    engine = open_engine(
        'cpu', tiny_files, options={'threads': 1, 'context_tokens': 160, 'prefill_chunk': 24}
    )
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def empty(request):
    """Have a shared engine begin with empty slots."""
    yield
    if 'tiny' in request.fixturenames:
        engine = request.getfixturevalue('tiny')
        for slot in reversed(range(engine.limits.kv_slots)):
            engine.select_kv(slot)
            engine.kv.truncate(0)


@pytest.mark.parametrize('seed', range(6))
def test_the_cpu_engine_answers_as_from_an_empty_cache(tiny, seed):
    watcher = Watcher(tiny, IdPrompts(200), scene(56, 4), seed)
    asked = watcher.run(STEPS)
    assert wrong_answers(tiny, asked, is_close) == []
    assert len(asked) >= STEPS // 5
    kept = [min(one.shared, len(one.prompt) - 1) for one in asked]
    assert [one.reused for one in asked] == kept, 'any length can be appended'
    assert sum(one.reused for one in asked) > sum(len(one.prompt) for one in asked) / 3


@pytest.mark.parametrize('seed', range(2))
def test_the_demo_model_answers_as_from_an_empty_cache(seed):
    files = find_model('cpu', 'demo')
    engine = open_engine('cpu', files, options={'threads': 1, 'prefill_chunk': 64})
    prompts = FamilyPrompts(load_family(files.tokenizer_folder))
    asked = Watcher(engine, prompts, scene(112, 16), seed).run(STEPS // 2)
    wrong = wrong_answers(engine, asked, is_close)
    engine.close()
    assert wrong == []


LIMITS = {
    'extends': {'prefill_chunk': 24},
    'all at once': {'prefill_chunk': 0},
    'token by token': {'prefill_chunk': 30, 'extension_chunk': 1},
    'one slot': {'prefill_chunk': 24, 'kv_slots': 1},
    'snapshots': {'prefill_chunk': 24, 'can_truncate': False, 'snapshots': 3},
    'one snapshot': {'prefill_chunk': 24, 'can_truncate': False, 'snapshots': 1, 'kv_slots': 1},
    'no way back': {'prefill_chunk': 24, 'can_truncate': False},
    'cannot extend': {'prefill_chunk': 0, 'can_extend_prefix': False},
}


@pytest.mark.parametrize('limits', LIMITS)
@pytest.mark.parametrize('seed', range(3))
def test_the_scripted_engine_answers_as_from_an_empty_cache(limits, seed):
    """It tells the mean pixel of each image in its cache, and refuses any gap."""
    files = find_model('scripted')
    script = {
        'answers': [{'answer': '{images} {means}'}],
        'limits': {'context_tokens': 400, **LIMITS[limits]},
    }
    if limits == 'token by token':
        script['latency'] = {'prefill_call_s': 20e-6, 'decode_s': 1e-6}
    engine = ScriptedEngine(files, Script.from_mapping(script), sleep=lambda _: None)
    prompts = FamilyPrompts(load_family(files.tokenizer_folder))
    splits = limits != 'cannot extend'
    watcher = Watcher(engine, prompts, scene(56, 4), seed, splits=splits, answer=24)
    asked = watcher.run(STEPS)
    assert wrong_answers(engine, asked, np.array_equal) == []
    assert any(one.reused for one in asked) is splits


class TestTheLawsCanBreak:
    """What is watched for is found."""

    def test_frames_that_are_mixed_up(self, tiny):
        class Forgetful(KvRecord):
            """Takes all frames of a stamp for one: those that differ in a block."""

            def _number(self, key):
                return super()._number(key.frames[0].stamp_ns)

        watcher = Watcher(tiny, IdPrompts(200), scene(56, 4), 1, record=Forgetful)
        assert wrong_answers(tiny, watcher.run(STEPS), is_close)

    def test_rows_that_are_kept_where_they_should_be_cut(self, tiny):
        class Hopeful(KvRecord):
            """Takes all that is as long for the same."""

            def shared(self, prompt, keys):
                super().shared(prompt, keys)
                return min(self.length, len(prompt))

        watcher = Watcher(tiny, IdPrompts(200), scene(56, 4), 1, record=Hopeful)
        assert wrong_answers(tiny, watcher.run(STEPS), is_close)
