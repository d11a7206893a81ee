"""Qwen3-VL as Axera publishes it, on both backends: the answers of the same model in float32."""

from dataclasses import replace

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
    ShownAs,
    Spliced,
    join_parts,
)
from edge_vlm_ros.engines import inspect_model, open_engine
from edge_vlm_ros.engines.axera.costs import GroupCosts
from edge_vlm_ros.engines.axera.plan import Planner
from edge_vlm_ros.families import read_family

pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')

from support.axera.prompts import answer, prefill_as_planned
from support.axera.qwen3_sets import (
    GRID,
    LAYOUT,
    TOWER,
    FloatTwin,
    bf16_rows,
    tower_group,
    write_qwen3_vl,
    write_tower,
)
from support.axera.sets import model_files
from support.reference.golden_cases import picture
from support.reuse_laws import FamilyPrompts, Watcher, wrong_answers
from support.tiny_model.prompts import decode_greedily

pytestmark = pytest.mark.axera

KIND = 'tiny-qwen3-vl'
NOISE = 0.06
"""What rounding to bfloat16 may move a score, in standard deviations of the scores."""


@pytest.fixture(scope='module')
def twin():
    return FloatTwin()


@pytest.fixture
def engine(open_set):
    return open_set(KIND)


@pytest.fixture
def family(engine, set_files):
    return read_family(ModelConfig(set_files(KIND).tokenizer_folder)).bound_by(engine.limits)


def frame(number, camera='front'):
    return Frame(picture(160, 120, number), number * 500_000_000, FrameSource(camera))


def prompt_of(family, images, question='What?'):
    prefix = family.render_prefix(images, 'S')
    return join_parts([prefix, family.render_suffix(question, prefix.next_position)])


def shown_of(family):
    """An image; two of them; a clip of two pairs, half a pair at its end."""
    clip = [frame(number) for number in range(3)]
    return {
        'image': [family.preprocess(frame(1))],
        'images': [family.preprocess(frame(n), ShownAs.AMONG_OTHERS) for n in (2, 3)],
        'clip': [family.preprocess_clip(clip[at : at + 2]) for at in (0, 2)],
    }


def see(engine, images):
    return {number: engine.encode(image) for number, image in enumerate(images)}


def check(found, twin, part, images):
    """Compare scores with those of the float twin, and the tokens where it is sure of them."""
    tokens, rows = found
    expected = twin.scores(part, images, tokens)[:, : rows.shape[1]]
    rows = rows[:, : expected.shape[1]]
    spread = expected.std()
    worst = np.abs(rows - expected).max() / spread
    assert worst < NOISE, f'scores are {worst:.2f} deviations off'
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1) > 0.999).all()
    ordered = np.sort(expected, axis=-1)
    sure = ordered[:, -1] - ordered[:, -2] > 2 * NOISE * spread
    assert sure.any()
    np.testing.assert_array_equal(np.array(tokens)[sure], expected.argmax(axis=-1)[sure])


def test_limits_are_those_of_one_grid_and_three_layers(engine, family):
    limits = engine.limits
    assert (limits.patch_grid, limits.max_patches, limits.tile_px) == (GRID, 64, 0)
    assert (limits.deepstack_layers, limits.context_tokens) == (3, 191)
    assert family.preprocess(frame(0)).grid == (1, *GRID)


@pytest.mark.parametrize('kind', ['image', 'images', 'clip'])
def test_answers_are_those_of_the_model_in_float32(engine, family, twin, kind):
    images = shown_of(family)[kind]
    part = prompt_of(family, images)
    assert (part.positions[0] != part.positions[1]).any()
    check(answer(engine, part, see(engine, images), 4), twin, part, images)


def test_rows_of_the_tower_are_those_of_the_tower_in_float32(engine, family, twin):
    (image,) = shown_of(family)['image']
    features = engine.encode(image)
    found = [features.rows, *features.deepstack]
    for bits, expected in zip(found, twin.see(image), strict=True):
        rows = (bits.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(rows, bf16_rows(expected), rtol=0.01, atol=0.01)


def test_an_images_own_tokens_become_what_they_do_in_float32(engine, family, twin):
    """The last word hardly tells the third layer's features; the image's last token does."""
    images = shown_of(family)['image']
    whole = prompt_of(family, images)
    (span,) = whole.spans
    for stop in (span.start + 1, span.start + 9, span.stop):
        engine.kv.truncate(0)
        part = whole.slice(0, stop)
        found = answer(engine, part, see(engine, images), 1)
        check(found, twin, part, images)


def test_each_layers_features_change_what_the_images_tokens_become(engine, family):
    """So a wrong layer, a wrong row or none at all would be seen above."""
    images = shown_of(family)['image']
    (span,) = prompt_of(family, images).spans
    part = prompt_of(family, images).slice(0, span.stop)
    features = engine.encode(images[0])
    _, expected = answer(engine, part, {0: features}, 1)
    for layer in range(3):
        without = list(features.deepstack)
        without[layer] = np.zeros_like(without[layer])
        engine.kv.truncate(0)
        _, scores = answer(engine, part, {0: Spliced(features.rows, tuple(without))}, 1)
        assert np.abs(scores - expected).max() > 2 * NOISE * expected.std()


# --- reuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('kept', [1, 7, 15])
def test_a_prefix_that_is_cut_inside_an_image_goes_on_with_the_rest_of_its_features(
    engine, family, twin, kept
):
    images = shown_of(family)['images']
    part = prompt_of(family, images)
    features = see(engine, images)
    prefill_as_planned(engine, part, features)
    cut = part.spans[1].start + kept
    engine.kv.truncate(cut)
    prefill_as_planned(engine, part.slice(cut, len(part)), features)
    check(decode_greedily(engine, part.next_position, 4), twin, part, images)


@pytest.fixture
def eager(engine):
    """The engine as on a chip whose steps cost next to nothing: plans take them for everything."""
    shapes = engine._shapes
    prefill = {group.index: 1000.0 for group in shapes.prefill}
    costs = GroupCosts(prefill, {group.index: 0.001 for group in shapes.decode})
    engine._planner = Planner(shapes, costs)
    return engine


def test_an_image_goes_through_chunks_where_steps_cannot_take_it(eager, family, twin):
    images = shown_of(family)['image']
    part = prompt_of(family, images)
    assert all(piece.group is None for piece in eager._planner.plan(0, len(part)))
    check(answer(eager, part, see(eager, images), 4), twin, part, images)


def test_an_image_before_more_words_than_chunks_take_is_answered_whatever_the_plan(
    eager, family, twin
):
    images = shown_of(family)['image']
    part = prompt_of(family, images, 'w' * (LAYOUT.histories[-1] + LAYOUT.chunk - 40))
    assert len(part) > LAYOUT.histories[-1] + LAYOUT.chunk
    steps = [piece.tokens for piece in eager._pieces(part, 0) if piece.group is None]
    (span,) = part.spans
    # The image's first token stands at one place on all axes, as a word does.
    assert steps == [span.start + 1, len(part) - span.stop]
    check(answer(eager, part, see(eager, images), 2), twin, part, images)


def test_features_are_added_in_steps_too_where_tokens_stand_as_words_do(eager, family):
    """A build whose decode groups took three rows would step through images."""
    images = shown_of(family)['image']
    part = prompt_of(family, images)
    plain = replace(part, positions=np.tile(np.arange(len(part)), (3, 1)))
    features = see(eager, images)
    _, stepped = answer(eager, plain, features, 1)
    assert all(piece.group is None for piece in eager._pieces(plain, 0))
    shapes = eager._shapes
    chunks = {group.index: 0.001 for group in shapes.prefill}
    eager._planner = Planner(shapes, GroupCosts(chunks, {0: 1000.0}))
    eager.kv.truncate(0)
    _, chunked = answer(eager, plain, features, 1)
    np.testing.assert_allclose(stepped, chunked, atol=NOISE * chunked.std())


def is_close(told, expected):
    return np.abs(told - expected).max() < NOISE * expected.std()


def is_sure(expected):
    second, first = np.sort(expected)[-2:]
    return first - second > 2 * NOISE * expected.std()


def test_a_chip_answers_as_from_an_empty_cache(open_set, set_files):
    engine = open_set(KIND, kv_slots=2)
    shapes = engine._shapes
    prefill = {group.index: 8.0 + group.history / 8 for group in shapes.prefill}
    engine._planner = Planner(shapes, GroupCosts(prefill, {0: 100.0}))
    family = read_family(ModelConfig(set_files(KIND).tokenizer_folder)).bound_by(engine.limits)

    def scene(number):
        return family.preprocess(frame(number), ShownAs.AMONG_OTHERS)

    asked = Watcher(engine, FamilyPrompts(family), scene, 7).run(24)
    assert wrong_answers(engine, asked, is_close, is_sure=is_sure) == []
    assert any(one.reused for one in asked)


# --- bounds --------------------------------------------------------------------------------------


def test_a_prompt_that_fills_the_context_is_answered_and_one_token_more_refused(engine, family):
    images = shown_of(family)['image']
    features = see(engine, images)
    room = engine.limits.longest_prompt - len(prompt_of(family, images, ''))
    answer(engine, prompt_of(family, images, 'w' * room), features, 1)
    engine.kv.truncate(0)
    with pytest.raises(PromptTooLongError, match='the context holds 191 tokens'):
        answer(engine, prompt_of(family, images, 'w' * (room + 2)), features, 1)


def test_a_clip_of_one_pair_too_many_is_refused(engine, family):
    pairs = [family.preprocess_clip([frame(n), frame(n + 1)]) for n in range(0, 12, 2)]
    with pytest.raises(PromptTooLongError):
        answer(engine, prompt_of(family, pairs), see(engine, pairs), 1)


def test_features_that_lack_a_layer_are_refused_and_the_engine_goes_on(engine, family, twin):
    images = shown_of(family)['image']
    part = prompt_of(family, images)
    features = see(engine, images)
    short = {0: Spliced(features[0].rows, features[0].deepstack[:2])}
    with pytest.raises(EdgeVlmError, match=r'has features for 2 of the first layers, .* after 3'):
        engine.prefill(part, short)
    assert engine.kv.length == 0
    check(answer(engine, part, features, 2), twin, part, images)


# --- files that do not belong together -----------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """Write a set of its own, to be spoiled."""
    return write_qwen3_vl(tmp_path / 'qwen3')


def open_folder(folder, chip='ax650'):
    open_engine(chip, model_files(folder, chip), options={'backend': 'portable'}).close()


@pytest.mark.parametrize(
    ('tower', 'message'),
    [
        (tower_group(16, 96), r"rows of width 128.*another model's vision file"),
        (tower_group(16, 128, 2), 'features for 3 of the first layers .*found some for 2'),
        (tower_group(16, 128, 0), 'features for 3 of the first layers .*found some for 0'),
        (tower_group(16, 128, 3, 392), r'expected 1536 values .*found patches of 1176 values'),
        (tower_group(8, 128), 'no vision model'),
    ],
)
def test_a_tower_that_does_not_fit_is_refused(stand_in, broken, tower, message):
    stand_in()
    write_tower(broken, tower)
    with pytest.raises(ModelFileError, match=message):
        open_folder(broken)


def test_features_of_another_size_than_the_prompts_are_refused(stand_in, broken):
    stand_in()
    group = tower_group(16, 128)
    odd = replace(group.outputs[2], shape=(8, 128))
    write_tower(broken, replace(group, outputs=(*group.outputs[:2], odd, group.outputs[3])))
    with pytest.raises(ModelFileError, match=r'deepstack_feature_1: expected .*16, 128'):
        open_folder(broken)


def test_a_set_for_another_chip_is_refused(stand_in, broken):
    stand_in(chip='ax630c')
    with pytest.raises((DeviceError, ModelFileError)):
        open_folder(broken, 'ax630c')


@pytest.mark.parametrize('name', ['qwen3_vl_text_p16_l1_together.axmodel', str(TOWER)])
def test_a_missing_file_is_named(stand_in, broken, name):
    stand_in()
    files = model_files(broken)
    (broken / name).unlink()
    with pytest.raises(ModelFileError, match=name.rpartition('/')[2]):
        open_engine('ax650', files, options={'backend': 'portable'})


def test_a_report_says_what_the_tower_gives(stand_in, set_files):
    stand_in()
    facts = dict(inspect_model('ax650', set_files(KIND)).facts)
    assert facts['image'] == '8 x 8 patches, 16 tokens, bytes'
    assert facts['deepstack'] == 'features for the first 3 layers'
    assert LAYOUT.position_rows == 3
    assert facts['KV width'].endswith('(3 rows of positions for a chunk, 1 for a token)')
