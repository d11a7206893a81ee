"""Qwen2.5-VL as Axera publishes it, on both backends: the answers of the same model in float32."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge_vlm_ros.core import (
    DeviceError,
    EdgeVlmError,
    Frame,
    FrameSource,
    ModelConfig,
    ModelFileError,
    PromptTooLongError,
    SamplingOptions,
    ShownAs,
    VisionInputs,
    join_parts,
    text_part,
)
from edge_vlm_ros.engines import inspect_model, open_engine
from edge_vlm_ros.engines.axera.costs import GroupCosts
from edge_vlm_ros.engines.axera.plan import Planner
from edge_vlm_ros.families import read_family
from edge_vlm_ros.models import find_model

pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')

from support.axera import qwen_sets
from support.axera.axmodel_file import Axmodel, Group, Tensor, write_axmodel
from support.axera.prompts import answer
from support.axera.qwen_sets import GRID, LAYOUT, write_float_twin, write_qwen2_5_vl
from support.axera.sets import CLIP_DEVIATION, CLIP_MEAN, model_files
from support.axera.stub.build import build_stub
from support.axera.stub.compute import Stub
from support.reference.golden_cases import picture

pytestmark = pytest.mark.axera

KIND = 'tiny-qwen2_5-vl'
NOISE = 0.06
"""What rounding to bfloat16 may move a score, in standard deviations of the scores."""


def family_of(engine, files, **options):
    return read_family(ModelConfig(files.tokenizer_folder), options).bound_by(engine.limits)


@pytest.fixture(scope='module')
def twin(tmp_path_factory):
    """The same weights in ONNX on the CPU, in float32, with the same family."""
    folder = write_float_twin(tmp_path_factory.mktemp('twin'))
    opened = open_engine('cpu', find_model('cpu', str(folder)), options={'threads': 1})
    yield opened
    opened.close()


@pytest.fixture
def engine(open_set):
    return open_set(KIND)


@pytest.fixture
def family(engine, set_files):
    return family_of(engine, set_files(KIND))


def frame(number, camera='front'):
    return Frame(picture(160, 120, number), number * 500_000_000, FrameSource(camera))


def prompt_of(family, images, question='What?'):
    prefix = family.render_prefix(images, 'S')
    return join_parts([prefix, family.render_suffix(question, prefix.next_position)])


def shown_of(family):
    """An image; two of them; a clip of three pairs, half a pair at its end."""
    clip = [frame(number) for number in range(5)]
    return {
        'image': [family.preprocess(frame(1))],
        'images': [family.preprocess(frame(n), ShownAs.AMONG_OTHERS) for n in (2, 3)],
        'clip': [family.preprocess_clip(clip[at : at + 2]) for at in (0, 2, 4)],
    }


def ask(engine, part, images, count=4):
    engine.kv.truncate(0)
    features = {number: engine.encode(image) for number, image in enumerate(images)}
    return answer(engine, part, features, count)


def check(engine, twin, part, images):
    """Compare scores with those of the float twin, and the tokens where it is sure of them."""
    tokens, rows = ask(engine, part, images)
    twin.kv.truncate(0)
    features = {number: twin.encode(image) for number, image in enumerate(images)}
    twin.prefill(part, features)
    expected = [twin.logits().values.copy()]
    for step, token in enumerate(tokens[:-1]):
        twin.decode(token, part.next_position + step)
        expected.append(twin.logits().values.copy())
    expected = np.stack(expected)[:, : rows.shape[1]]
    spread = expected.std()
    worst = np.abs(rows - expected).max() / spread
    assert worst < NOISE, f'scores are {worst:.2f} deviations off'
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1) > 0.999).all()
    ordered = np.sort(expected, axis=-1)
    sure = ordered[:, -1] - ordered[:, -2] > 2 * NOISE * spread
    assert sure.any()
    np.testing.assert_array_equal(np.array(tokens)[sure], expected.argmax(axis=-1)[sure])


def test_limits_are_those_of_one_grid(engine, family):
    limits = engine.limits
    assert (limits.patch_grid, limits.max_patches, limits.tile_px) == (GRID, 64, 0)
    assert limits.context_tokens == 191
    assert family.frames_per_input == 2
    assert family.preprocess(frame(0)).grid == (1, *GRID)


@pytest.mark.parametrize('kind', ['image', 'images', 'clip'])
def test_answers_are_those_of_the_model_in_float32(engine, family, twin, kind):
    images = shown_of(family)[kind]
    part = prompt_of(family, images)
    assert (part.positions[0] != part.positions[1]).any()
    check(engine, twin, part, images)


def test_rows_of_the_tower_are_those_of_the_tower_in_float32(engine, family, twin):
    """Bytes go in, and the levels that they were normalised from come out of it."""
    for image in shown_of(family)['clip']:
        found = (engine.encode(image).rows.astype(np.uint32) << 16).view(np.float32)
        expected = twin.encode(image).rows
        np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01)


def test_the_tower_is_fed_the_very_levels_frame_by_frame_and_colours_last(engine, family):
    levels = np.random.default_rng(3).integers(0, 256, (64, 3, 392)).astype(np.float32)
    scaled = (levels / 255 - CLIP_MEAN[:, None]) / CLIP_DEVIATION[:, None]
    feed = engine._vision._feed(scaled)
    assert feed.dtype == np.uint8
    np.testing.assert_array_equal(feed, levels.transpose(0, 2, 1))


# --- steps take words only -----------------------------------------------------------------------


@pytest.fixture
def eager(engine):
    """The engine as on a chip whose steps cost next to nothing: plans take them for everything."""
    shapes = engine._shapes
    prefill = {group.index: 1000.0 for group in shapes.prefill}
    costs = GroupCosts(prefill, {group.index: 0.001 for group in shapes.decode})
    engine._planner = Planner(shapes, costs)
    return engine


def test_an_images_tokens_never_go_through_steps_whatever_the_plan(
    eager, family, twin, monkeypatch
):
    images = shown_of(family)['images']
    part = prompt_of(family, images)
    assert all(piece.group is None for piece in eager._planner.plan(0, len(part)))
    stepped, step = [], eager._backend.step
    monkeypatch.setattr(
        eager._backend, 'step', lambda *args: (stepped.append(args[2].tolist()), step(*args))
    )
    check(eager, twin, part, images)
    assert stepped
    assert all(time == row == column for time, row, column in stepped)


def test_words_behind_the_last_history_go_through_steps(engine, family, twin):
    images = shown_of(family)['image']
    part = prompt_of(family, images, 'w' * (LAYOUT.histories[-1] + LAYOUT.chunk - 40))
    assert len(part) > LAYOUT.histories[-1] + LAYOUT.chunk
    check(engine, twin, part, images)


def test_an_image_behind_all_that_chunks_see_is_refused_and_the_engine_goes_on(engine, family):
    """It cannot go through steps: a decode group knows one place, not three."""
    images = shown_of(family)['image']
    words = text_part([30] * (LAYOUT.histories[-1] + LAYOUT.chunk + 1), 0)
    features = {0: engine.encode(images[0])}
    answer(engine, words, count=1)
    held = engine.kv.length
    late = family.render_next_turn(images, 0, words.next_position)
    with pytest.raises(PromptTooLongError, match=r'takes one within the first 128 tokens only'):
        engine.prefill(late, features)
    assert engine.kv.length == held
    engine.kv.truncate(0)
    answer(engine, prompt_of(family, images), features, 2)


# --- bounds --------------------------------------------------------------------------------------


def test_a_prompt_that_fills_the_context_is_answered_and_one_token_more_refused(engine, family):
    images = shown_of(family)['image']
    room = engine.limits.longest_prompt - len(prompt_of(family, images, ''))
    ask(engine, prompt_of(family, images, 'w' * room), images, 1)
    engine.kv.truncate(0)
    with pytest.raises(PromptTooLongError, match='the context holds 191 tokens'):
        ask(engine, prompt_of(family, images, 'w' * (room + 2)), images, 1)


def test_a_clip_of_one_pair_too_many_is_refused(engine, family):
    step = family.frames_per_input
    frames = [frame(number) for number in range(24)]
    pairs = [family.preprocess_clip(frames[at : at + step]) for at in range(0, 24, step)]
    part = prompt_of(family, pairs)
    assert len(part) > engine.limits.context_tokens
    with pytest.raises(PromptTooLongError):
        ask(engine, part, pairs, 1)


def test_pixels_that_are_not_of_the_grid_are_refused(engine):
    for grid, patches in (((1, 8, 10), 80), ((1, 4, 16), 64), ((2, 8, 8), 64)):
        inputs = VisionInputs(np.zeros((patches, 1176), np.float32), grid, patches // 4)
        with pytest.raises(EdgeVlmError, match=r'expected \(.*1176\) in \(8, 8\)'):
            engine.encode(inputs)


# --- files that do not belong together -----------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """Write a set of its own, to be spoiled."""
    return write_qwen2_5_vl(tmp_path / 'qwen')


def open_folder(folder, chip='ax650'):
    open_engine(chip, model_files(folder, chip), options={'backend': 'portable'}).close()


def write_tower(folder, image, rows, width):
    group = Group((Tensor('hidden_states', 'u8', image),), (Tensor('out', 'f32', (rows, width)),))
    write_axmodel(
        folder / 'vit_axmodel' / 'internvl_vit.axmodel', Axmodel('vit', 'ax650', (group,))
    )


@pytest.mark.parametrize(
    ('tower', 'message'),
    [
        (((1, 64, 392, 3), 16, 96), r"rows of width 64.*another model's vision file"),
        (((1, 64, 512, 3), 16, 64), r'expected 1176 values .*found patches of 1536 values'),
        (((1, 64, 392, 3), 8, 64), 'no vision model'),
        (((1, 60, 392, 3), 15, 64), 'no vision model'),  # of no square
    ],
)
def test_a_tower_that_does_not_fit_is_refused(stand_in, broken, tower, message):
    stand_in()
    write_tower(broken, *tower)
    with pytest.raises(ModelFileError, match=message):
        open_folder(broken)


def test_a_tower_of_tiles_is_refused_by_the_family(stand_in, broken, write_set):
    stand_in()
    other = write_set('tiny') / 'vit_axmodel' / 'internvl_vit.axmodel'
    shutil.copy(other, broken / 'vit_axmodel' / 'internvl_vit.axmodel')
    files = model_files(broken)
    engine = open_engine('ax650', files, options={'backend': 'portable'})
    with pytest.raises(ModelFileError, match=r'takes tiles of 56 px: .*not of one model'):
        family_of(engine, files)
    engine.close()


def test_a_tower_of_patches_beside_internvls_texts_is_refused(stand_in, broken, write_set):
    stand_in()
    shutil.copy(write_set('tiny') / 'config.json', broken / 'config.json')
    with pytest.raises(ModelFileError, match=r'expected tiles of 56 px .*found patches'):
        open_folder(broken)


def test_a_set_for_another_chip_is_refused(stand_in, broken):
    stand_in(chip='ax630c')
    with pytest.raises((DeviceError, ModelFileError)):
        open_folder(broken, 'ax630c')


@pytest.mark.parametrize('name', ['qwen2_5_vl_p16_l1_together.axmodel', 'config.json'])
def test_a_missing_file_is_named(stand_in, broken, name):
    stand_in()
    files = model_files(broken)
    (broken / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        open_engine('ax650', files, options={'backend': 'portable'})


def test_three_rows_of_positions_that_lack_a_group_are_refused(stand_in, broken):
    """Layers of a build for words alone beside those of this one."""
    stand_in()
    write_qwen2_5_vl(broken / 'other', replace(LAYOUT, position_rows=1))
    name = LAYOUT.layer_name(2)
    shutil.copy(broken / 'other' / name, broken / name)
    with pytest.raises(ModelFileError, match=r'l2_.*indices.*files of different builds'):
        open_folder(broken)


# --- what is said of it --------------------------------------------------------------------------


def test_a_report_says_what_the_tower_takes_and_how_positions_go(stand_in, set_files):
    stand_in()
    report = inspect_model('ax650', set_files(KIND))
    facts = dict(report.facts)
    assert facts['image'] == '8 x 8 patches, 16 tokens, bytes'
    assert facts['KV width'].endswith('(3 rows of positions for a chunk, 1 for a token)')
    json.dumps(report.facts)


def test_a_clip_that_grows_by_a_pair_goes_on_from_what_was_there(engine, family):
    clip = shown_of(family)['clip'][:2]
    more = [*clip, family.preprocess_clip([frame(4), frame(5)])]
    parts = [prompt_of(family, each) for each in (clip, more)]
    expected, scores = ask(engine, parts[1], more)
    kept = family.render_prefix(clip, 'S')
    assert all(
        one == other
        for one, other in pairwise([p.tokens[: len(kept) - 1].tolist() for p in parts])
    )
    ask(engine, kept, clip, 1)
    engine.kv.truncate(len(kept) - 1)
    features = {number: engine.encode(image) for number, image in enumerate(more)}
    found, found_scores = answer(engine, parts[1].slice(len(kept) - 1, len(parts[1])), features, 4)
    assert found == expected
    np.testing.assert_allclose(found_scores, scores, atol=NOISE * scores.std())


# --- the published sizes -------------------------------------------------------------------------


def test_the_published_sizes_are_read_as_the_vendors_log_has_them(stand_in, set_files):
    stand_in()
    report = inspect_model('ax650', set_files('qwen2.5-vl-3b'))
    facts = dict(report.facts)
    assert facts['image'] == '32 x 32 patches, 256 tokens, bytes'
    assert facts['prompt in chunks'].startswith('640 tokens')
    assert (facts['context'], facts['images in a prompt']) == ('1023 tokens', '2')


@pytest.mark.parametrize('backend', ['in_place'], indirect=True)
def test_a_token_moves_hardly_more_than_it_must(open_set, backend):
    """Hidden state, position, an element of the mask, logits; one run a layer and the head's."""
    engine = open_set('qwen2.5-vl-3b')
    assert engine.backend_name == 'in place'
    stub = Stub(build_stub('ax650'))
    engine.prefill(text_part([1, 2, 3], 0), {})
    engine.next_token(SamplingOptions())
    stub.reset_counts()
    for step in range(5):
        engine.decode(7, 3 + step)
        engine.next_token(SamplingOptions())
    least = 2 * qwen_sets.HIDDEN + 4 + 2 + 2 * qwen_sets.VOCAB
    moved = stub.count('bytes_flushed') + stub.count('bytes_invalidated')
    assert moved <= 1.1 * 5 * least
    assert stub.count('runs') == 5 * (qwen_sets.LAYERS + 1)
