"""InternVL3.5 as its repository lies on a board: found by its folder, right on both backends."""

import numpy as np
import pytest

from edge_vlm_ros.core import text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model

pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')

from support.axera.prompts import answer, picture
from support.axera.reference import Reference
from support.axera.weights import qwen3_weights
from support.tiny_model.prompts import random_prompt

pytestmark = pytest.mark.axera

PLACEHOLDER, ROWS = 261, 4
NOISE = 0.06
"""What rounding to bfloat16 may move a score, in standard deviations of the scores."""


@pytest.fixture
def engine(backend, write_set, monkeypatch):
    monkeypatch.setenv('EDGE_VLM_AX_CHIP', 'ax650')
    files = find_model('ax650', str(write_set('tiny-internvl3.5')))
    assert files.family == 'internvl'
    assert files.weights['layers.2'].name == 'qwen3_p16_l2_together.axmodel'
    assert files.weights['vision_encoder'].parent.name == 'vit-models'
    opened = open_engine('ax650', files, options={'backend': backend})
    yield opened
    opened.close()


def check(reference, part, found, features=None):
    tokens, rows = found
    expected = reference.scores(part, features or {}, tokens)
    worst = np.abs(rows - expected).max() / expected.std()
    assert worst < NOISE, f'{worst:.3f} deviations off'
    ordered = np.sort(expected, axis=-1)
    is_sure = ordered[:, -1] - ordered[:, -2] > 2 * NOISE * expected.std()
    np.testing.assert_array_equal(np.array(tokens)[is_sure], expected.argmax(axis=-1)[is_sure])
    return int(is_sure.sum())


def test_tokens_and_scores_are_those_of_the_float_reference(engine):
    """Words alone over several chunks, and two images."""
    reference = Reference(qwen3_weights())
    words = text_part(np.random.default_rng(1).integers(0, 256, 41).tolist(), 0)
    sure = check(reference, words, answer(engine, words))
    engine.kv.truncate(0)
    shown = [picture(seed) for seed in range(2)]
    seen = dict(enumerate(engine.encode(inputs) for inputs in shown))
    expected = {image: reference.see(inputs.pixels) for image, inputs in enumerate(shown)}
    part = random_prompt(2, images=2, rows=ROWS, placeholder=PLACEHOLDER)
    sure += check(reference, part, answer(engine, part, seen), expected)
    assert sure >= 3, 'the reference must be sure of some tokens to tell anything'
