"""Pixels of Qwen2-VL and Llama 3.2 Vision: equal to what the published processors made.

The arrays were made by test/support/reference/golden.py; versions stand in the files.
"""

from pathlib import Path

import numpy as np
import pytest
from support.families import load_family
from support.reference.golden_cases import (
    MLLAMA_IMAGES,
    QWEN2_VL_IMAGES,
    QWEN2_VL_VIDEOS,
    picture,
    summary,
)

from edge_vlm_ros.core import Frame, FrameSource
from edge_vlm_ros.vision import aspect_ratio_id, aspect_ratio_mask

DATA = Path(__file__).parent / 'data'
QWEN2_VL = np.load(DATA / 'qwen2_vl.npz')
MLLAMA = np.load(DATA / 'mllama.npz')


def frame(pixels):
    return Frame(pixels, 0, FrameSource('front'))


def check(golden, name, pixels):
    """A value is off by rounding in float32, nothing else."""
    made = summary(pixels)
    assert made['shape'].tolist() == golden[f'{name}_shape'].tolist()
    for key in ('rows', 'columns', 'samples'):
        np.testing.assert_allclose(made[key], golden[f'{name}_{key}'], atol=2e-5)


@pytest.mark.parametrize('number', range(len(QWEN2_VL_IMAGES)))
def test_qwen2_vl_images(qwen2_vl_folder, number):
    width, height, fewest, most = QWEN2_VL_IMAGES[number]
    family = load_family(qwen2_vl_folder(min_pixels=fewest, max_pixels=most))
    inputs = family.preprocess(frame(picture(width, height, number)))
    assert list(inputs.grid) == QWEN2_VL[f'image{number}_grid'].tolist()
    assert inputs.tokens * 4 == len(inputs.pixels) == inputs.grid[1] * inputs.grid[2]
    assert inputs.pixels.dtype == np.float32
    check(QWEN2_VL, f'image{number}', inputs.pixels)


@pytest.mark.parametrize('number', range(len(QWEN2_VL_VIDEOS)))
def test_pairs_of_a_clip_are_qwen2_vls_video(qwen2_vl_folder, number):
    frames, width, height = QWEN2_VL_VIDEOS[number]
    family = load_family(qwen2_vl_folder(), min_pixels=784, clip_pixels=width * height)
    assert family.frames_per_input == 2
    shown = [frame(picture(width, height, seed)) for seed in range(frames)]
    pairs = [family.preprocess_clip(shown[i : i + 2]) for i in range(0, frames, 2)]
    groups, rows, columns = QWEN2_VL[f'video{number}_grid'].tolist()
    assert [pair.grid for pair in pairs] == [(1, rows, columns)] * groups
    check(QWEN2_VL, f'video{number}', np.concatenate([pair.pixels for pair in pairs]))
    whole = family.preprocess_clip(shown)
    assert whole.grid == (groups, rows, columns)
    assert whole.tokens == sum(pair.tokens for pair in pairs)
    check(QWEN2_VL, f'video{number}', whole.pixels)


@pytest.mark.parametrize('number', range(len(MLLAMA_IMAGES)))
def test_mllama_images(mllama_folder, number):
    width, height, tile_px = MLLAMA_IMAGES[number]
    family = load_family(mllama_folder(tile_px))
    inputs = family.preprocess(frame(picture(width, height, number)))
    images, rows, columns = inputs.grid
    assert (images, inputs.tokens) == (1, 0)
    assert aspect_ratio_id(rows, columns, 4) == MLLAMA[f'image{number}_id']
    mask = aspect_ratio_mask(rows, columns, 4)
    np.testing.assert_array_equal(mask, MLLAMA[f'image{number}_mask'])
    check(MLLAMA, f'image{number}', inputs.pixels)
