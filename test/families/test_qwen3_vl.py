"""Qwen3-VL: ids, pixels, positions and places in the table as published; time stamps of videos."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import limits, load_family
from support.reference.golden_cases import (
    QWEN3_VL_PROMPTS,
    QWEN_QUESTION,
    TABLE_GRIDS,
    picture,
    summary,
)

from edge_vlm_ros.core import Frame, FrameSource, ModelFileError, ShownAs, VisionInputs, join_parts
from edge_vlm_ros.families.qwen3_vl import Qwen3VlFamily
from edge_vlm_ros.vision import table_places

GOLDEN = np.load(Path(__file__).parent / 'data' / 'qwen3_vl.npz')
SECOND_NS = 1_000_000_000
SOME_DAY_NS = 1_764_000_000 * SECOND_NS  # stamps count from 1970
START = '<|im_start|>user\n'

within_a_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def family(qwen3_vl_folder):
    return load_family(qwen3_vl_folder(), min_pixels=1024)


def inputs_of(family, shown, camera='front'):
    """Prepare an image, or a clip whose frames have the stamps of an even rate."""
    frames = [
        Frame(pixels, SOME_DAY_NS + round(number / shown.fps * SECOND_NS), FrameSource(camera))
        for number, pixels in enumerate(shown.pictures())
    ]
    if not shown.frames:
        return [family.preprocess(frames[0], ShownAs.AMONG_OTHERS)]
    step = family.frames_per_input
    return [family.preprocess_clip(frames[at : at + step]) for at in range(0, len(frames), step)]


def ask(family, images, question=QWEN_QUESTION):
    prefix = family.render_prefix(images, '')
    return join_parts([prefix, family.render_suffix(question, prefix.next_position)])


def spelt(family, part):
    return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)


def test_the_family_is_known_by_its_model_type(family):
    assert isinstance(family, Qwen3VlFamily)
    assert family.frames_per_input == 2


@pytest.mark.parametrize('number', range(len(QWEN3_VL_PROMPTS)))
def test_ids_positions_and_pixels_are_those_of_the_published_processor_and_model(family, number):
    shown = QWEN3_VL_PROMPTS[number]
    groups = [inputs_of(family, each, f'camera{i}') for i, each in enumerate(shown)]
    part = ask(family, [image for group in groups for image in group])
    assert part.tokens.tolist() == GOLDEN[f'prompt{number}_ids'].tolist()
    positions = GOLDEN[f'prompt{number}_positions']
    np.testing.assert_array_equal(part.positions, positions)
    assert part.next_position == positions.max() + 1
    for kind, is_clip in (('pixel_values', False), ('pixel_values_videos', True)):
        pixels = [
            image.pixels
            for each, group in zip(shown, groups, strict=True)
            for image in group
            if bool(each.frames) is is_clip
        ]
        assert bool(pixels) is (f'prompt{number}_{kind}_shape' in GOLDEN.files)
        for key, value in (summary(np.concatenate(pixels)) if pixels else {}).items():
            golden = GOLDEN[f'prompt{number}_{kind}_{key}']
            np.testing.assert_allclose(value, golden, atol=2e-5)


@pytest.mark.parametrize('number', range(len(TABLE_GRIDS)))
def test_places_in_the_table_are_those_of_the_published_model(number):
    corners, weights = table_places(*TABLE_GRIDS[number])
    assert (corners.dtype, weights.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(corners, GOLDEN[f'table{number}_corners'])
    np.testing.assert_allclose(weights, GOLDEN[f'table{number}_weights'], atol=1e-6)


SIDES = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60))


@given(sides=SIDES)
def test_law_a_patch_lies_inside_the_table_and_its_parts_are_one(sides):
    rows, columns, side = 2 * sides[0], 2 * sides[1], sides[2]
    corners, weights = table_places(rows, columns, side)
    assert corners.shape == weights.shape == (rows * columns, 4)
    assert 0 <= corners.min() <= corners.max() < side**2
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert weights.min() >= 0


# --- words ---------------------------------------------------------------------------------------


def test_no_system_text_stands_where_none_is_asked_for(family):
    assert spelt(family, family.render_prefix([], '')) == START
    assert spelt(family, family.render_prefix([], 'Be short.')) == (
        f'<|im_start|>system\nBe short.<|im_end|>\n{START}'
    )


def pair(*seconds, grid=(1, 1), camera='front'):
    """An input of one pair, whose frames were taken at these times."""
    rows, columns = grid
    stamps = tuple(SOME_DAY_NS + round(each * SECOND_NS) for each in seconds)
    pixels = np.zeros((0, 1536), np.float32)
    inputs = VisionInputs(pixels, (1, 2 * rows, 2 * columns), rows * columns, camera)
    return replace(inputs, stamps_ns=stamps, shown_as=ShownAs.VIDEO, table_side=48)


def stamps_of(family, images):
    words = spelt(family, family.render_prefix(images, '')).removeprefix(START)
    return [word.rpartition('<')[2] for word in words.split(' seconds>')[:-1]]


@pytest.mark.parametrize(
    ('pairs', 'expected'),
    [
        ([(0, 1), (2, 3)], ['0.5', '2.5']),
        ([(0, 0.5), (1, 1.5), (2,)], ['0.2', '1.2', '2.0']),  # the last frame stands alone
        ([(0,)], ['0.0']),
        ([(0, 1), (7, 8)], ['0.5', '7.5']),  # frames that were left out are time that went by
        ([(0, 0), (0, 0), (0, 0)], ['0.0', '1.0', '2.0']),  # no stamps
        ([(5, 6), (2, 3), (9, 9)], ['0.5', '1.5', '4.0']),  # a clock that was set back
    ],
)
def test_the_time_before_a_pair_is_counted_from_the_clips_first_frame(family, pairs, expected):
    assert stamps_of(family, [pair(*seconds) for seconds in pairs]) == expected


def test_pairs_without_stamps_are_a_second_apart(family):
    images = [replace(pair(each), stamps_ns=()) for each in (0, 9, 10)]
    assert stamps_of(family, images) == ['0.0', '1.0', '2.0']


def test_each_pair_stands_by_itself_and_two_cameras_count_by_themselves(family):
    images = [pair(0, 1), pair(2, 3), pair(8, 9, camera='rear')]
    block = '<|vision_start|><|video_pad|><|vision_end|>'
    part = family.render_prefix(images, '')
    assert spelt(family, part) == (
        f'{START}<0.5 seconds>{block}<2.5 seconds>{block}<0.5 seconds>{block}'
    )
    assert [(span.image, len(span)) for span in part.spans] == [(0, 1), (1, 1), (2, 1)]


GAPS = st.lists(st.integers(-3 * SECOND_NS, 90 * SECOND_NS), max_size=5)
GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 5))


@within_a_fixture
@given(gaps=GAPS, grid=GRIDS)
def test_law_positions_never_run_ahead_of_tokens_and_a_clip_grows_at_its_end(family, gaps, grid):
    starts = np.concatenate([[0], np.cumsum(gaps)]) / SECOND_NS
    images = [pair(float(start), float(start) + 0.4, grid=grid) for start in starts]
    parts = [family.render_prefix(images[:count], '') for count in range(1, len(images) + 1)]
    for part in parts:
        assert (part.positions.max(0) <= np.arange(len(part))).all()
        assert part.next_position <= len(part)
    for shorter, longer in pairwise(parts):
        assert longer.tokens[: len(shorter)].tolist() == shorter.tokens.tolist()
        np.testing.assert_array_equal(longer.positions[:, : len(shorter)], shorter.positions)


# --- bounds --------------------------------------------------------------------------------------


def frame(width=640, height=480):
    return Frame(picture(width, height), 0, FrameSource('front'))


def test_an_image_fits_the_tower_and_three_quarters_of_the_context(qwen3_vl_folder):
    bounds = limits(context_tokens=768, longest_prompt=768, max_patches=2304, deepstack_layers=3)
    family = load_family(qwen3_vl_folder(), bounds)
    inputs = family.preprocess(frame(1920, 1080))
    _, rows, columns = inputs.grid
    assert inputs.pixels.shape == (rows * columns, 1536)
    assert inputs.tokens <= 576
    assert inputs.table_side == 48
    clip = family.preprocess_clip([frame(1920, 1080)] * 2)
    assert clip.tokens <= 144
    assert clip.images == 1


def test_the_one_grid_of_a_compiled_tower_is_taken(qwen3_vl_folder):
    bounds = limits(max_patches=576, patch_grid=(24, 24), deepstack_layers=3)
    family = load_family(qwen3_vl_folder(), bounds)
    for inputs in (family.preprocess(frame()), family.preprocess_clip([frame(), frame()])):
        assert inputs.grid == (1, 24, 24)
        assert inputs.tokens == 144


def config_with(**changes):
    vision = {'patch_size': 16, 'deepstack_visual_indexes': [1, 2, 3], **changes}
    return {'model_type': 'qwen3_vl', 'vision_config': vision}


@pytest.mark.parametrize('places', [0, -4, 7, '2304', 2304.5, True])
def test_a_table_that_is_no_square_is_refused(qwen3_vl_folder, places):
    with pytest.raises(ModelFileError, match='num_position_embeddings'):
        load_family(qwen3_vl_folder(config_with(num_position_embeddings=places)))


def test_a_table_of_the_published_size_is_taken_where_the_files_say_nothing(qwen3_vl_folder):
    family = load_family(qwen3_vl_folder(config_with()), limits(deepstack_layers=3))
    assert family.preprocess(frame()).table_side == 48


@pytest.mark.parametrize('layers', [1, 2, 4])
def test_a_tower_with_other_features_than_the_files_say_is_refused(qwen3_vl_folder, layers):
    with pytest.raises(
        ModelFileError, match=rf'for 3 layers.*some for {layers}.*not of one model'
    ):
        load_family(qwen3_vl_folder(), limits(deepstack_layers=layers))


@pytest.mark.parametrize('kind', ['qwen2_vl_folder', 'qwen2_5_vl_folder'])
def test_the_tower_of_qwen3_vl_is_refused_beside_the_files_of_its_forerunners(request, kind):
    folder = request.getfixturevalue(kind)()
    with pytest.raises(ModelFileError, match=r'for 3: .*not of one model'):
        load_family(folder, limits(deepstack_layers=3))
