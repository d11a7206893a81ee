"""Qwen2.5-VL: ids, pixels and positions of the published processor and model; time in videos."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import limits, load_family
from support.reference.golden_cases import QWEN2_5_VL_PROMPTS, QWEN_QUESTION, summary

from edge_vlm_ros.core import Frame, FrameSource, ModelFileError, ShownAs, VisionInputs, join_parts
from edge_vlm_ros.families.qwen2_5_vl import Qwen25VlFamily

GOLDEN = np.load(Path(__file__).parent / 'data' / 'qwen2_5_vl.npz')
SECOND_NS = 1_000_000_000
SOME_DAY_NS = 1_764_000_000 * SECOND_NS  # stamps count from 1970

within_a_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def family(qwen2_5_vl_folder):
    return load_family(qwen2_5_vl_folder(), min_pixels=784)


def inputs_of(family, shown, camera='front'):
    """Prepare an image, or a clip whose frames have the stamps of an even rate."""
    step = family.frames_per_input
    frames = [
        Frame(pixels, SOME_DAY_NS + round(number / shown.fps * SECOND_NS), FrameSource(camera))
        for number, pixels in enumerate(shown.pictures())
    ]
    if not shown.frames:
        return [family.preprocess(frames[0], ShownAs.AMONG_OTHERS)]
    return [family.preprocess_clip(frames[at : at + step]) for at in range(0, len(frames), step)]


def ask(family, images, question=QWEN_QUESTION):
    prefix = family.render_prefix(images, '')
    return join_parts([prefix, family.render_suffix(question, prefix.next_position)])


def test_the_family_is_known_by_its_model_type(family):
    assert isinstance(family, Qwen25VlFamily)


@pytest.mark.parametrize('number', range(len(QWEN2_5_VL_PROMPTS)))
def test_ids_positions_and_pixels_are_those_of_the_published_processor_and_model(family, number):
    shown = QWEN2_5_VL_PROMPTS[number]
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


# --- time ----------------------------------------------------------------------------------------


def pair(seconds, grid=(10, 10), pairs=1):
    """An input of pairs that begin a second apart, the first at some time."""
    rows, columns = grid
    stamps = [SOME_DAY_NS + round((seconds + at / 2) * SECOND_NS) for at in range(2 * pairs)]
    pixels = np.zeros((0, 1176), np.float32)
    tokens = pairs * rows * columns
    inputs = VisionInputs(pixels, (pairs, 2 * rows, 2 * columns), tokens, 'front', pairs)
    return replace(inputs, stamps_ns=tuple(stamps), shown_as=ShownAs.VIDEO)


def moments(family, images):
    """The places in time of a clip's tokens, each once, from 0."""
    part = family.render_prefix(images, '')
    (first, last) = part.spans[0].start, part.spans[-1].stop
    times = part.positions[0, first:last] - part.positions[0, first]
    return sorted({int(time) for time in times})


@pytest.mark.parametrize(
    ('seconds', 'expected'),
    [
        ((0, 1, 2, 3), [0, 2, 4, 6]),
        ((0, 0.4, 0.8, 1.2), [0, 1, 2]),  # two pairs share a place, as published
        ((0, 0.99, 2.01, 3.0), [0, 2, 4, 6]),  # a stamp a little early costs nothing
        ((0, 1, 5, 6), [0, 2, 10, 12]),  # frames that were left out are time that went by
        ((0, 3600), [0, 100]),  # no further apart than a pair has tokens
        ((0, 0, 0), [0, 2, 4]),  # no stamps: the published default, a second
        ((5, 2, 3), [0, 2, 4]),  # a clock that was set back
    ],
)
def test_a_pair_stands_where_its_stamp_says(family, seconds, expected):
    assert moments(family, [pair(each) for each in seconds]) == expected


def test_several_pairs_of_one_input_stand_where_they_would_in_inputs_of_their_own(family):
    apart = family.render_prefix([pair(each) for each in (0, 1, 2, 3)], '')
    for cuts in ((4,), (3, 1), (1, 2, 1)):
        starts = np.cumsum((0, *cuts[:-1]))
        inputs = [pair(start, pairs=count) for start, count in zip(starts, cuts, strict=True)]
        together = family.render_prefix(inputs, '')
        np.testing.assert_array_equal(together.positions, apart.positions)


def test_frames_without_stamps_are_a_second_apart(family):
    images = [replace(pair(each), stamps_ns=()) for each in (0, 9, 10)]
    assert moments(family, images) == [0, 2, 4]


def test_the_rate_is_the_models(qwen2_5_vl_folder):
    config = {'model_type': 'qwen2_5_vl', 'vision_config': {'tokens_per_second': 5}}
    images = [pair(each) for each in (0, 1, 2)]
    assert moments(load_family(qwen2_5_vl_folder(config)), images) == [0, 5, 10]
    config['vision_config'] = {}
    assert moments(load_family(qwen2_5_vl_folder(config)), images) == [0, 4, 8]


@pytest.mark.parametrize('rate', [0, -1, '2', True])
def test_a_rate_that_is_no_number_above_0_is_refused(qwen2_5_vl_folder, rate):
    config = {'model_type': 'qwen2_5_vl', 'vision_config': {'tokens_per_second': rate}}
    with pytest.raises(ModelFileError, match='tokens_per_second'):
        load_family(qwen2_5_vl_folder(config))


GAPS = st.lists(st.integers(-3 * SECOND_NS, 90 * SECOND_NS), max_size=5)


@within_a_fixture
@given(gaps=GAPS, grid=st.tuples(st.integers(1, 4), st.integers(1, 5)))
def test_law_positions_never_run_ahead_of_tokens_and_a_clip_grows_at_its_end(family, gaps, grid):
    starts = np.concatenate([[0], np.cumsum(gaps)]) / SECOND_NS
    images = [pair(float(start), grid) for start in starts]
    whole = family.render_prefix(images, '')
    assert (whole.positions[0] <= np.arange(len(whole))).all()
    assert whole.next_position <= len(whole)
    times = [int(whole.positions[0, span.start]) for span in whole.spans]
    assert all(later >= earlier for earlier, later in pairwise(times))
    for count in range(1, len(images)):
        kept = len(shorter := family.render_prefix(images[:count], '')) - 1
        np.testing.assert_array_equal(shorter.positions[:, :kept], whole.positions[:, :kept])


@pytest.mark.reference
@within_a_fixture
@given(
    pairs=st.integers(1, 6),
    fps=st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 24, 30]),
    rate=st.integers(1, 4),
    rows=st.integers(1, 4),
)
def test_positions_of_even_rates_are_those_of_the_published_model(
    qwen2_5_vl_folder, pairs, fps, rate, rows
):
    torch = pytest.importorskip('torch')
    from support.reference.qwen2_5_vl import rope_positions

    config = {'model_type': 'qwen2_5_vl', 'vision_config': {'tokens_per_second': rate}}
    family = load_family(qwen2_5_vl_folder(config))
    # As wide as the clip is long: else transformers 4 and 5 disagree about the text behind it.
    columns = max(1, int(rate * 2 / fps * pairs) + 1)
    images = [pair(2 * number / fps, (rows, columns)) for number in range(pairs)]
    part = ask(family, images)
    video = family.tokenizer.token_id('<|video_pad|>')
    made = {
        'input_ids': torch.from_numpy(part.tokens)[None],
        'mm_token_type_ids': torch.from_numpy(2 * (part.tokens == video))[None],
        'video_grid_thw': torch.tensor([[pairs, 2 * rows, 2 * columns]]),
        'second_per_grid_ts': [2 / fps],
    }
    expected, after = rope_positions(made, rate)
    np.testing.assert_array_equal(part.positions, expected)
    assert part.next_position == after


# --- bounds --------------------------------------------------------------------------------------


def test_an_engine_of_one_grid_gets_every_image_and_pair_in_it(qwen2_5_vl_folder):
    bounds = limits(context_tokens=1023, longest_prompt=1022, max_patches=484, patch_grid=(22, 22))
    family = load_family(qwen2_5_vl_folder(), bounds)
    wide = Frame(np.zeros((90, 160, 3), np.uint8), 0, FrameSource('front'))
    assert family.preprocess(wide).grid == (1, 22, 22)
    assert family.frames_per_input == 2
    assert family.preprocess_clip([wide, wide]).tokens == 121


def test_a_tower_of_tiles_is_refused(qwen2_5_vl_folder):
    with pytest.raises(ModelFileError, match='takes tiles of 448 px'):
        load_family(qwen2_5_vl_folder(), limits(tile_px=448))
