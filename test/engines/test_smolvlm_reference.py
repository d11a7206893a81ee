"""SmolVLM from camera frames to answers against the published classes in float32.

Frames and words go through our family and engine on one side; on the other through the published
processor and model, with the same weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.families import load_family
from support.tiny_model.prompts import decode_greedily, prefill_in_cuts

from edge_vlm_ros.core import Frame, FrameSource, ShownAs, join_parts
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model

# Importing torch and transformers alone takes long on a busy machine.
pytestmark = [pytest.mark.reference, pytest.mark.slow, pytest.mark.timeout(300)]

TOKENS = 24
SIZES = [(32, 32), (40, 30), (320, 180), (180, 320), (128, 128), (640, 480)]
WORDS = 'What is in front of the robot?'


@dataclass(frozen=True)
class Published:
    """The published processor and model."""

    processor: Any
    model: Any

    def inputs(self, frames, *, is_split, words=WORDS):
        """Return ids and pixels."""
        shown = '<image>' * len(frames)
        text = f'<|im_start|>User:{shown or " "}{words}<end_of_utterance>\nAssistant:'
        found = self.processor(
            text=text,
            images=[Image.fromarray(frame.pixels) for frame in frames] or None,
            do_image_splitting=is_split,
            add_special_tokens=False,
            return_tensors='np',
        )
        return found['input_ids'][0], found.get('pixel_values', [None])[0]

    def scores(self, ids, pixels, tokens):
        """Score each of an answer's tokens, one pass over the prompt and those before it."""
        whole = np.concatenate([ids, tokens[:-1]]).astype(np.int64)
        return self.model.logits(whole, pixels)[len(ids) - 1 :]


@pytest.fixture(scope='module')
def published(smolvlm_folder):
    import transformers
    from support.reference.smolvlm import SmolVlmReference
    from support.tiny_smolvlm.config import TinySmolVlmConfig
    from support.tiny_smolvlm.make import VOCABULARY, token_id
    from support.tiny_smolvlm.weights import make_weights
    from tokenizers import Tokenizer
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

    backend = Tokenizer.from_file(str(smolvlm_folder / 'tokenizer.json'))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    images = json.loads((smolvlm_folder / 'preprocessor_config.json').read_text())
    images.pop('image_processor_type')
    processor = Idefics3Processor(Idefics3ImageProcessorPil(**images), tokenizer, image_seq_len=4)
    config = json.loads((smolvlm_folder / 'config.json').read_text())
    weights = make_weights(TinySmolVlmConfig(), VOCABULARY, token_id('<image>'))
    return Published(processor, SmolVlmReference(config, weights))


@pytest.fixture(scope='module')
def engine(smolvlm_folder):
    opened = open_engine('cpu', find_model('cpu', str(smolvlm_folder)), options={'threads': 1})
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def columns_first(monkeypatch):
    """Let Pillow resize columns, then rows, as all before 13 do (see `resize_exact`)."""
    direct = Image.Image.resize

    def resize(self, size, resample=None, *args, **more):
        turned = direct(self, (size[0], self.size[1]), resample, *args, **more)
        return direct(turned, size, resample, *args, **more)

    monkeypatch.setattr(Image.Image, 'resize', resize)


def frame(width, height, seed=0):
    """Draw a frame of large blocks, so that frames differ in what is seen."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 7 // width
    return Frame(blocks[rows][:, columns], 0, FrameSource(''))


def render(engine, folder, frames, shown_as):
    family = load_family(folder, engine.limits, max_tiles=16)
    inputs = [family.preprocess(one, shown_as) for one in frames]
    prefix = family.render_prefix(inputs, '')
    suffix = family.render_suffix(WORDS, prefix.next_position, follows_images=bool(frames))
    return inputs, join_parts([prefix, suffix])


def run(engine, part, inputs):
    features = {number: engine.encode(one) for number, one in enumerate(inputs)}
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part, features, [9, len(part) // 2])
    return decode_greedily(engine, part.next_position, TOKENS)


CASES = [
    *(([size], ShownAs.ALONE) for size in SIZES),
    ([(320, 180), (640, 480)], ShownAs.AMONG_OTHERS),
    ([(320, 180)] * 4, ShownAs.AMONG_OTHERS),
    ([], ShownAs.ALONE),
]


@pytest.mark.parametrize(('sizes', 'shown_as'), CASES, ids=str)
def test_ids_pixels_scores_and_greedy_tokens_are_the_published_ones(
    engine, smolvlm_folder, published, sizes, shown_as
):
    frames = [frame(*size, seed) for seed, size in enumerate(sizes)]
    is_split = shown_as is ShownAs.ALONE
    if not is_split:  # Ours brings each of several to one tile's side at once.
        published.processor.image_processor.size = {'longest_edge': 32}
    try:
        ids, pixels = published.inputs(frames, is_split=is_split)
    finally:
        published.processor.image_processor.size = {'longest_edge': 128}
    inputs, part = render(engine, smolvlm_folder, frames, shown_as)
    assert part.tokens.tolist() == ids.tolist()
    if frames:
        np.testing.assert_array_equal(np.concatenate([one.pixels for one in inputs]), pixels)
    tokens, rows = run(engine, part, inputs)
    expected = published.scores(ids, pixels, tokens)
    assert tokens == expected.argmax(axis=-1).tolist()
    assert len(set(tokens)) > 2, 'a model that says one thing shows nothing'
    np.testing.assert_allclose(rows, expected, atol=1e-4)


@pytest.mark.parametrize(
    ('variant', 'tolerance'),
    [
        ('fp16', 0.02),
        ('int8', 0.1),
        ('q4', 0.5),
        pytest.param('uint8', 0.1, marks=pytest.mark.exhaustive, id='more-uint8'),
        pytest.param('quantized', 0.1, marks=pytest.mark.exhaustive, id='more-quantized'),
        pytest.param('q4f16', 0.5, marks=pytest.mark.exhaustive, id='more-q4f16'),
        pytest.param('bnb4', 0.5, marks=pytest.mark.exhaustive, id='more-bnb4'),
    ],
)
def test_variants_answer_within_their_tolerance(
    smolvlm_folder, published, tmp_path, variant, tolerance
):
    """Of the spread of scores; tokens are equal where the best is clear by more than that."""
    from support.tiny_smolvlm.variants import make_variant

    folder = make_variant(smolvlm_folder, variant, tmp_path / variant)
    engine = open_engine('cpu', find_model('cpu', str(folder)), options={'threads': 1})
    compared = 0
    for seed, size in enumerate(SIZES[:4]):
        inputs, part = render(engine, folder, [frame(*size, seed)], ShownAs.ALONE)
        tokens, rows = run(engine, part, inputs)
        pixels = inputs[0].pixels
        expected = published.scores(part.tokens, pixels, tokens)
        spread = expected.std()
        assert np.abs(rows - expected).mean() < tolerance * spread
        for token, row in zip(tokens, expected, strict=True):
            low, high = np.sort(row)[-2:]
            if high - low > 4 * tolerance * spread:
                compared += 1
                assert token == row.argmax()
    engine.close()
    assert compared or tolerance > 0.2
