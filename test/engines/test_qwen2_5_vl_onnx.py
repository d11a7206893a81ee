"""Qwen2.5-VL on the CPU, in the layout of its public export; the published model's answers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from support.reference.golden_cases import QWEN_CLOSING, QWEN_OPENING, QWEN_QUESTION, picture
from support.tiny_model.prompts import decode_greedily, prefill_in_cuts

from edge_vlm_ros.core import Frame, FrameSource, ModelConfig, ShownAs, join_parts
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.families import read_family
from edge_vlm_ros.models import find_model

pytestmark = [pytest.mark.reference, pytest.mark.slow, pytest.mark.timeout(300)]

TOKENS = 16
FPS = 2.0
IMAGE = '<|vision_start|><|image_pad|><|vision_end|>'
VIDEO = '<|vision_start|><|video_pad|><|vision_end|>'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.qwen2_5_vl import make_tiny_qwen2_5_vl

    return make_tiny_qwen2_5_vl(tmp_path_factory.mktemp('qwen2_5'))


@pytest.fixture(scope='module')
def engine(folder):
    # However busy the machine is when it loads, images are of one size.
    options = {'threads': 1}
    opened = open_engine('cpu', find_model('cpu', str(folder)), options=options)
    yield opened
    opened.close()


@pytest.fixture(scope='module')
def family(folder, engine):
    options = {'max_pixels': 1024 * 14**2, 'clip_pixels': 256 * 14**2}
    return read_family(ModelConfig(folder), options).bound_by(engine.limits)


@pytest.fixture(scope='module')
def published(folder, family):
    pytest.importorskip('torch')
    from support.reference.qwen2_vl import Qwen2VlReference
    from support.tiny_model.qwen2_5_vl import make_weights

    most = family.settings.sizes.alone.max_pixels
    return Qwen2VlReference(folder, make_weights(), most)


@pytest.fixture
def check(engine, family, published):
    """Compare ids, positions, rows, scores and tokens with the published model's."""
    return partial(_check, engine, family, published)


def _check(engine, family, published, images, prompt):
    ids, shown = prompt
    prefix = family.render_prefix(images, '')
    part = join_parts([prefix, family.render_suffix(QWEN_QUESTION, prefix.next_position)])
    features = {number: engine.encode(image) for number, image in enumerate(images)}
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part, features)
    tokens, scores = decode_greedily(engine, part.next_position, TOKENS)
    assert part.tokens.tolist() == ids.tolist()
    np.testing.assert_array_equal(part.positions, published.positions(ids, shown))
    rows = np.concatenate([features[number].rows for number in range(len(images))])
    np.testing.assert_allclose(rows, published.features(shown), atol=1e-4)
    whole = np.concatenate([ids, tokens[:-1]])
    expected = published.logits(whole, shown)[len(ids) - 1 :]
    assert tokens == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert len(set(tokens)) > TOKENS // 4, 'a model that says one thing shows nothing'


@pytest.mark.parametrize('size', [(112, 112), (320, 180), (150, 400)])
def test_an_image_of_several_windows_is_answered_as_the_published_model_does(
    family, published, check, size
):
    torch = pytest.importorskip('torch')
    frame = Frame(picture(*size, 3), 0, FrameSource('front'))
    image = family.preprocess(frame, ShownAs.ALONE)
    ids, shown = published.images(
        f'{QWEN_OPENING}{IMAGE}{QWEN_QUESTION}{QWEN_CLOSING}', [frame.pixels]
    )
    assert list(image.grid) == shown['image_grid_thw'][0].tolist()
    # Which pixels these are is the business of the families' golden tests.
    shown['pixel_values'] = torch.from_numpy(image.pixels)
    check([image], (ids, shown))


@pytest.mark.parametrize('pairs', [1, 3])
def test_a_clip_is_answered_as_the_published_model_does(family, published, check, pairs):
    torch = pytest.importorskip('torch')
    step = family.frames_per_input
    frames = [
        Frame(picture(308, 168, seed), round(seed / FPS * 1e9), FrameSource('front'))
        for seed in range(pairs * step)
    ]
    images = [family.preprocess_clip(frames[at : at + step]) for at in range(0, len(frames), step)]
    pixels = np.concatenate([image.pixels for image in images])
    ids, shown = published.clip(
        f'{QWEN_OPENING}{VIDEO}{QWEN_QUESTION}{QWEN_CLOSING}',
        pixels,
        (pairs, *images[0].grid[1:]),
    )
    shown['second_per_grid_ts'] = torch.tensor([step / FPS])
    check(images, (ids, shown))
