"""InternVL's pixels: equal to the published transform, written here once more with Pillow."""

import numpy as np
import pytest
from PIL import Image
from support.families import limits, load_family

from edge_vlm_ros.core import BadImageError, Frame, FrameSource, ShownAs

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
PX = 112


def scene(width, height, seed=0):
    """A smooth room with a few hard edges, as cameras see one; uint8, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    a, b, c = rng.uniform(0, 9, (3, 3))
    pixels = 127 + 100 * np.sin(rows[..., None] / height * a + columns[..., None] / width * b + c)
    for _ in range(6):
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top : top + height // 5, left : left + width // 6] = rng.integers(0, 256, 3)
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def frame(pixels):
    return Frame(pixels, 0, FrameSource('front'))


def published(pixels, most, px=PX):
    """The model card's dynamic_preprocess and transform, without torchvision."""
    image = Image.fromarray(pixels)
    width, height = image.size
    sides = range(1, most + 1)
    ratios = sorted(
        ((i, j) for i in sides for j in sides if i * j <= most),
        key=lambda ratio: ratio[0] * ratio[1],
    )
    best, nearest = (1, 1), float('inf')
    for ratio in ratios:
        difference = abs(width / height - ratio[0] / ratio[1])
        if difference < nearest or (
            difference == nearest and width * height > 0.5 * px * px * ratio[0] * ratio[1]
        ):
            best, nearest = ratio, difference
    columns, rows = best
    filled = image.resize((px * columns, px * rows), Image.Resampling.BICUBIC)
    tiles = [
        filled.crop((x * px, y * px, (x + 1) * px, (y + 1) * px))
        for y in range(rows)
        for x in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append(image.resize((px, px), Image.Resampling.BICUBIC))
    values = np.stack([np.asarray(tile) for tile in tiles]) / 255
    return ((values - MEAN) / STD).transpose(0, 3, 1, 2), best


def levels(difference):
    """Mean absolute difference per channel, in units of 1/255 before normalising."""
    return np.abs(difference).mean(axis=(0, 2, 3)) * STD * 255


SIZES = [(1920, 1080), (640, 480), (480, 640), (333, 77), (112, 112), (50, 40), (1, 300)]


@pytest.mark.parametrize(('width', 'height'), SIZES)
@pytest.mark.parametrize('most', [1, 4, 12])
def test_pixels_equal_the_published_transform(model_folder, width, height, most):
    family = load_family(model_folder(max_dynamic_patch=most))
    pixels = scene(width, height)
    expected, (columns, rows) = published(pixels, most)
    inputs = family.preprocess(frame(pixels))
    assert inputs.pixels.dtype == np.float32
    assert inputs.pixels.shape == expected.shape
    assert inputs.grid == (len(expected), rows, columns)
    assert levels(inputs.pixels - expected).max() < 0.01  # of the 1 that the goal allows
    assert np.abs(inputs.pixels - expected).max() < 1e-5


SHARES = [(12, 2, 6), (12, 5, 2), (4, 2, 2), (4, 3, 1)]


@pytest.mark.parametrize('size', SIZES[:3])
@pytest.mark.parametrize(('most', 'images', 'share'), SHARES)
def test_several_images_are_cut_as_in_training(model_folder, size, most, images, share):
    """`max_dynamic_patch // images` tiles for each."""
    bounds = limits(context_tokens=8192, longest_prompt=8192)
    family = load_family(model_folder(max_dynamic_patch=most), bounds)
    pixels = scene(*size)
    expected, (columns, rows) = published(pixels, share)
    inputs = family.preprocess_one_of(frame(pixels), images)
    assert inputs.grid == (len(expected), rows, columns)
    assert np.abs(inputs.pixels - expected).max() < 1e-5


def test_several_images_are_cut_less_where_the_engine_takes_fewer(model_folder):
    wide = frame(scene(1600, 400))
    for bounds, grid in (
        ({'longest_prompt': 500}, (5, 1, 4)),
        ({'longest_prompt': 370}, (3, 1, 2)),
        ({'max_images': 8}, (4, 1, 3)),
        ({'max_images': 2}, (1, 1, 1)),
    ):
        known = limits(**{'context_tokens': 4096, 'longest_prompt': 4096, **bounds})
        assert load_family(model_folder(), known).preprocess_one_of(wide, 2).grid == grid, bounds


@pytest.mark.parametrize(('width', 'height'), SIZES[:3])
@pytest.mark.parametrize('most', [1, 12])
def test_the_fast_filter_stays_near_the_published_transform(model_folder, width, height, most):
    family = load_family(model_folder(max_dynamic_patch=most), resize='fast')
    pixels = scene(width, height)
    expected, _ = published(pixels, most)
    assert levels(family.preprocess(frame(pixels)).pixels - expected).max() < 1.5


def test_every_tile_brings_its_share_of_placeholders(model_folder):
    family = load_family(model_folder())
    inputs = family.preprocess(frame(scene(800, 400)))
    assert family.settings.tokens_per_tile == 16  # (112 / 14 * 0.5) ** 2
    assert inputs.tokens == 16 * len(inputs.pixels)
    assert inputs.grid[0] == len(inputs.pixels) == 1 + inputs.grid[1] * inputs.grid[2]


def test_frames_of_a_clip_get_one_tile_each(model_folder):
    family = load_family(model_folder())
    inputs = family.preprocess(frame(scene(800, 400)), ShownAs.AMONG_OTHERS)
    assert inputs.pixels.shape == (1, 3, PX, PX)
    assert (inputs.grid, inputs.tokens) == ((1, 1, 1), 16)


def test_without_dynamic_tiling_a_frame_is_one_tile(model_folder):
    family = load_family(model_folder(dynamic_image_size=False))
    assert family.preprocess(frame(scene(800, 400))).grid == (1, 1, 1)


def test_the_number_of_tiles_may_be_bounded(model_folder):
    family = load_family(model_folder(), max_tiles=4)
    inputs = family.preprocess(frame(scene(1600, 400)))
    assert inputs.grid == (5, 1, 4)
    assert inputs.images == 5, 'each tile, and the thumbnail'


def test_a_model_that_wants_no_thumbnail_gets_none(model_folder):
    family = load_family(model_folder(use_thumbnail=False))
    assert family.preprocess(frame(scene(800, 400))).grid[0] % 2 == 0


def test_the_converted_layout_of_transformers_is_read_too(model_folder):
    from_converted = load_family(
        model_folder(
            {
                'model_type': 'internvl',
                'downsample_ratio': 0.5,
                'text_config': {'model_type': 'qwen2'},
                'vision_config': {'patch_size': [14, 14], 'image_size': [112, 112]},
            },
            preprocessor={
                'max_patches': 12,
                'min_patches': 1,
                'size': {'height': 112, 'width': 112},
            },
        )
    )
    pixels = scene(640, 480)
    expected, _ = published(pixels, 12)
    np.testing.assert_allclose(
        from_converted.preprocess(frame(pixels)).pixels, expected, atol=1e-5
    )
    assert from_converted.settings.form.system_text == ''


def test_mean_and_deviation_are_the_files(model_folder):
    preprocessor = {'image_mean': [0.0, 0.0, 0.0], 'image_std': [1.0, 0.5, 1.0]}
    family = load_family(model_folder(preprocessor=preprocessor))
    white = np.full((PX, PX, 3), 255, np.uint8)
    assert family.preprocess(frame(white)).pixels[0, :, 0, 0].tolist() == [1.0, 2.0, 1.0]


def test_a_frame_without_pixels_is_refused(model_folder):
    family = load_family(model_folder())
    with pytest.raises(BadImageError):
        family.preprocess(frame(np.zeros((0, 10, 3), np.uint8)))
