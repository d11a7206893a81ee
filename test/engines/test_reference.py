"""The CPU engine against the float reference: transformers' own classes, the same weights."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from support.tiny_model.prompts import (
    decode_greedily,
    prefill_in_cuts,
    random_inputs,
    random_prompt,
)

from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model

# Importing torch and transformers alone takes long on a busy machine.
pytestmark = [pytest.mark.reference, pytest.mark.slow, pytest.mark.timeout(300)]

TOKENS = 8
# Below this gap between the reference's two best scores, rounding may choose either.
CLEAR_GAP = 1e-3


class Pair(NamedTuple):
    engine: object
    reference: object
    rows: int
    placeholder: int

    def inputs(self, seed):
        return random_inputs(seed, px=self.engine.limits.tile_px, rows=self.rows)

    def prompt(self, seed, images):
        return random_prompt(
            seed, images=images, rows=self.rows, placeholder=self.placeholder, words=20
        )


def make_pair(files, weights):
    from support.reference.internvl import InternVlReference

    engine = open_engine('cpu', files, options={'threads': 1})
    config = json.loads((files.tokenizer_folder / 'config.json').read_text())
    # Prompts are random: any id may stand where features go, so long as no word has it.
    placeholder = engine.limits.vocab_size - 1
    reference = InternVlReference(config, weights, placeholder)
    return Pair(engine, reference, engine._vision.rows_per_tile, placeholder)


@pytest.fixture(scope='module')
def tiny(tiny_files):
    from support.tiny_model.config import TinyConfig
    from support.tiny_model.weights import make_weights

    return make_pair(tiny_files, make_weights(TinyConfig()))


@pytest.fixture(scope='module')
def demo():
    from support.onnx_weights import read_weights

    files = find_model('cpu', 'demo')
    return make_pair(files, read_weights(files.weights.values()))


@pytest.fixture(params=['tiny', 'demo'])
def pair(request):
    return request.getfixturevalue(request.param)


def cosine(one, other):
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


FEW = [(0, 0), (1, 1), (2, 3), (0, 8)]
MORE = [
    pytest.param(seed, images, marks=pytest.mark.exhaustive, id=f'more-{seed}-{images}')
    for seed in range(3)
    for images in (0, 1, 3, 8)
    if (seed, images) not in FEW
]


@pytest.mark.parametrize('seed', range(3))
def test_the_vision_tower_gives_the_references_features(pair, seed):
    inputs = pair.inputs(seed)
    found = pair.engine.encode(inputs).rows
    expected = pair.reference.features(inputs.pixels)
    assert found.shape == expected.shape
    assert cosine(found, expected) > 0.9999
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(('seed', 'images'), [*FEW, *MORE])
def test_prompts_are_answered_as_the_reference_does(pair, seed, images):
    part = pair.prompt(seed, images)
    inputs = [pair.inputs(seed + i) for i in range(images)]
    features = {i: pair.engine.encode(given) for i, given in enumerate(inputs)}
    pixels = np.concatenate([given.pixels for given in inputs]) if inputs else None
    pair.engine.kv.truncate(0)
    prefill_in_cuts(pair.engine, part, features, [7, len(part) // 2])
    tokens, rows = decode_greedily(pair.engine, part.next_position, TOKENS)
    # One pass of the reference over prompt and answer scores every step of the answer.
    whole = np.concatenate([part.tokens, tokens[:-1]])
    expected = pair.reference.logits(whole, pixels)[len(part) - 1 :]
    for token, row, expected_row in zip(tokens, rows, expected, strict=True):
        assert cosine(row, expected_row) > 0.9999
        low, high = np.sort(expected_row)[-2:]
        assert token == expected_row.argmax() or high - low < CLEAR_GAP
