"""The engine through the registry: its bounds, its pieces, and what it refuses."""

import re
from dataclasses import replace

import numpy as np
import pytest
from support.tiny_model.prompts import decode_greedily, random_inputs, random_prompt

from edge_vlm_ros.core import (
    BadRequestError,
    CancelledError,
    DeviceError,
    EdgeVlmError,
    ModelFileError,
    NotReadyError,
    PromptTooLongError,
    SamplingOptions,
    Spliced,
    VisionInputs,
)
from edge_vlm_ros.engines import inspect_model, open_engine
from edge_vlm_ros.engines.axera.choose_backend import OpenedSessions
from edge_vlm_ros.engines.axera.costs import GroupCosts
from edge_vlm_ros.engines.axera.engine import limits_of
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.plan import Planner
from edge_vlm_ros.engines.axera.vision_shapes import VisionShapes

pytestmark = pytest.mark.axera
PORTABLE = {'backend': 'portable'}
VISION = VisionShapes(
    tile_px=448, rows=256, width=1536, is_channels_last=False, takes_bytes=False, output=0
)


@pytest.fixture
def load(stand_in, set_files):
    """Open a set on the stand-in: `load('tiny')`; closed after the test."""
    stand_in()
    opened = []

    def make(kind='tiny', chip='ax650', **arguments):
        files = arguments.pop('files', None) or set_files(kind, chip)
        opened.append(open_engine(chip, files, **{'options': PORTABLE, **arguments}))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


def held_bytes():
    from axengine._python_library import LEDGER

    return LEDGER.held_bytes


def question(engine, words=12, images=0, seed=0):
    rows, px = engine._vision.shapes.rows, engine.limits.tile_px
    last = engine.limits.vocab_size - 1
    part = random_prompt(seed, images=images, rows=rows, placeholder=last, words=words)
    features = {i: engine.encode(random_inputs(seed + i, px=px, rows=rows)) for i in range(images)}
    return part, features


def without(files, part):
    return replace(files, weights={k: v for k, v in files.weights.items() if k != part})


# --- bounds ------------------------------------------------------------------------------------


def published(histories, capacity=2559):
    prefill = tuple(PrefillGroup(1 + i, 128, 128 * i) for i in range(histories))
    return StackShapes(28, 1536, 256, 151674, 1, 1, prefill, (DecodeGroup(0, capacity),))


@pytest.mark.parametrize(('histories', 'images'), [(9, 4), (17, 8), (8, 3)])
def test_as_many_images_as_the_chunks_hold(histories, images):
    limits = limits_of(published(histories), VISION, 151674)
    assert limits.max_images == images
    assert (limits.context_tokens, limits.longest_prompt) == (2559, 2558)
    assert (limits.tiles_per_frame, limits.prefill_chunk, limits.tile_px) == (1, 128, 448)


def test_one_image_fits_the_fixed_build():
    shapes = replace(published(1, 1023), prefill=(PrefillGroup(1, 320, 0),))
    assert limits_of(shapes, VISION, 151674).max_images == 1


def test_loading_tells_how_far_it_is(load):
    told = []
    engine = load(on_loaded=lambda loaded, total: told.append((loaded, total)))
    total = engine._shapes.layers + 2
    steps = [pair for pair in dict.fromkeys(told) if pair[0]]  # it asks in between, too
    assert steps == [(i + 1, total) for i in range(total)]


# --- pieces ------------------------------------------------------------------------------------


def test_a_part_of_any_length_is_cut_as_it_was_planned(load):
    engine = load('tiny-irregular')
    part, _ = question(engine, words=60)
    groups = (*engine._shapes.prefill, *engine._shapes.decode)
    costs = {group.index: 1.0 + group.index for group in groups}
    engine._planner = Planner(engine._shapes, GroupCosts(costs, costs))
    planned = engine.plan_prefill(len(part))
    ran = []
    backend = engine._backend
    prefill = backend.prefill
    backend.prefill = lambda group, embeds, *rest: (
        ran.append(len(embeds)),
        prefill(group, embeds, *rest),
    )
    engine.prefill(part, {})
    assert tuple(ran) == planned
    assert sum(planned) == len(part) == engine.kv.length


@pytest.mark.parametrize('step_ms', [1e-6, 1e6])
def test_answers_do_not_depend_on_what_is_cheapest(load, step_ms):
    engine = load()
    part, features = question(engine, images=2)
    engine.prefill(part, features)
    expected, rows = decode_greedily(engine, part.next_position, 5)
    engine.kv.truncate(0)
    prefill = {group.index: 1.0 for group in engine._shapes.prefill}
    engine._planner = Planner(engine._shapes, GroupCosts(prefill, {0: step_ms}))
    engine.prefill(part, features)
    found, found_rows = decode_greedily(engine, part.next_position, 5)
    assert found == expected
    np.testing.assert_allclose(found_rows, rows, atol=0.1)


def test_two_loads_plan_alike_whatever_the_noise_of_their_measurements(
    load, set_files, tmp_path, monkeypatch
):
    files = set_files('tiny')
    folder = tmp_path / 'set'
    folder.mkdir()
    files = replace(files, folder=folder)  # costs of other tests lie beside the set itself
    random = np.random.default_rng(2)

    def noisy(backend, shapes):
        groups = (*shapes.prefill, *shapes.decode)
        ms = {group.index: 5.0 * random.uniform(0.9, 1.1) for group in groups}
        return GroupCosts(ms, ms)

    monkeypatch.setattr('edge_vlm_ros.engines.axera.engine.measure_costs', noisy)
    found = [load(files=files)._planner._costs for _ in range(3)]
    assert found == found[:1] * 3
    assert noisy(None, load(files=files)._shapes) != found[0]


def test_the_tail_of_a_prefix_is_run_again_where_a_cheaper_chunk_then_does(load):
    """Rows of an image only if the caller has its features; and answers stay the same."""
    engine = load()
    chunk = engine.limits.prefill_chunk
    part, features = question(engine, images=1, words=14)
    part = part.slice(0, 2 * chunk - 4)
    span = part.spans[0]
    assert span.start < chunk < span.stop < len(part) - 4
    costs = {group.index: 1.0 + group.history for group in engine._shapes.prefill}
    engine._planner = Planner(engine._shapes, GroupCosts(costs, {0: 1e6}))
    inside, behind = span.start + 1, span.stop + 1
    assert engine.usable_prefix(behind, part) == behind, 'not known'
    assert engine.usable_prefix(behind, part, ()) == behind
    assert engine.usable_prefix(behind, part, {0}) == chunk
    assert engine.usable_prefix(chunk, part, ()) == chunk
    assert engine.usable_prefix(inside, part, ()) == inside, 'below the first border but 0'
    words, _ = question(engine, words=30)
    assert engine.usable_prefix(chunk + 3, words) == chunk
    engine.prefill(part, features)
    expected, _ = decode_greedily(engine, part.next_position, 3)
    for held in range(behind, len(part)):
        engine.kv.truncate(held)
        kept = engine.usable_prefix(held, part, {0})
        assert kept == chunk
        engine.kv.truncate(kept)
        engine.prefill(part.slice(kept, len(part)), features)
        assert decode_greedily(engine, part.next_position, 3)[0] == expected


def test_a_prompt_longer_than_the_chunks_goes_on_step_by_step(load):
    engine = load('tiny-fixed')
    part, features = question(engine, images=1, words=40)
    assert len(part) > engine.limits.prefill_chunk
    engine.prefill(part, features)
    expected = load('tiny-17')
    expected.prefill(part, features)
    tokens, _ = decode_greedily(engine, part.next_position, 5)
    assert tokens == decode_greedily(expected, part.next_position, 5)[0]


def test_a_prompt_given_up_leaves_the_cache_as_it_was(load):
    engine = load()
    part, _ = question(engine)
    engine.prefill(part, {})
    expected = engine.next_token(SamplingOptions()).values.copy()
    more, _ = question(engine, words=30, seed=1)
    calls = []
    with pytest.raises(CancelledError):
        engine.prefill(more, {}, lambda: calls.append(1) or len(calls) > 4)
    assert engine.kv.length == len(part)
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        engine.next_token(SamplingOptions())
    engine.kv.truncate(len(part) - 1)
    engine.prefill(part.slice(len(part) - 1, len(part)), {})
    np.testing.assert_allclose(engine.next_token(SamplingOptions()).values, expected, atol=0.1)


def test_scores_belong_to_the_last_token_only(load):
    engine = load()
    part, _ = question(engine)
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        engine.next_token(SamplingOptions())
    engine.prefill(part, {})
    engine.next_token(SamplingOptions())
    engine.kv.truncate(3)
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        engine.next_token(SamplingOptions())


@pytest.mark.parametrize('length', [-1, 5])
def test_a_cache_is_not_truncated_to_what_it_never_held(load, length):
    engine = load()
    with pytest.raises(ValueError, match='cannot truncate 0 tokens'):
        engine.kv.truncate(length)


class Recorder:
    """A backend that notes what it is given."""

    name = 'recorder'

    def __init__(self):
        self.positions = []

    def prefill(self, group, embeds, positions, first_row, should_stop, *_):
        self.positions.append(positions.tolist())

    def step(self, group, embed, position, row, deepstack=None):
        self.positions.append(position.tolist())

    def head(self):
        return np.zeros(300, np.float32)

    def close(self):
        """Nothing to free."""


@pytest.fixture
def three_rows(load):
    """An engine whose model takes three rows of positions."""
    engine = load()
    engine._shapes = replace(engine._shapes, position_rows=3, step_rows=3)
    costs = {group.index: 1.0 for group in engine._shapes.prefill}
    engine._planner = Planner(engine._shapes, GroupCosts(costs, {0: 10.0}))
    engine._backend.close()
    engine._backend = Recorder()
    return engine


def test_three_rows_of_positions_go_through_as_they_are(three_rows):
    part, _ = question(three_rows, words=2)
    positions = np.arange(3 * len(part)).reshape(3, -1)
    three_rows.prefill(replace(part, positions=positions), {})
    three_rows.decode(1, 40)
    assert three_rows._backend.positions == [positions.tolist(), [[40], [40], [40]]]


def test_one_row_of_positions_stands_for_all_three(three_rows):
    part, _ = question(three_rows, words=2)
    three_rows.prefill(part, {})
    assert three_rows._backend.positions == [[list(range(len(part)))] * 3]


def test_a_head_padded_beyond_the_table_never_gives_what_has_no_embedding(three_rows):
    part, _ = question(three_rows, words=2)
    three_rows.prefill(part, {})
    assert len(three_rows.next_token(SamplingOptions()).values) == three_rows.limits.vocab_size


def test_three_rows_are_refused_where_the_model_takes_one(load):
    engine = load()
    part, _ = question(engine, words=2)
    with pytest.raises(EdgeVlmError, match='three rows of positions, this model takes one'):
        engine.prefill(replace(part, positions=np.zeros((3, len(part)), np.int64)), {})


# --- images ------------------------------------------------------------------------------------


def test_several_tiles_are_the_tiles_one_by_one(load):
    engine = load()
    rows, px = engine._vision.shapes.rows, engine.limits.tile_px
    inputs = random_inputs(3, px=px, rows=2 * rows, tiles=2)
    both = engine.encode(inputs)
    assert isinstance(both, Spliced)
    single = [
        engine.encode(VisionInputs(inputs.pixels[i : i + 1], (1, 1, 1), rows)) for i in (0, 1)
    ]
    np.testing.assert_array_equal(both.rows, np.concatenate([one.rows for one in single]))


def test_a_vision_tower_that_takes_bytes_sees_the_very_levels(load):
    """Pixels of 8 bit, normalised and taken back: what the other tower computes from them."""
    plain, of_bytes = load('tiny'), load('tiny-nhwc')
    px, rows = plain.limits.tile_px, plain._vision.shapes.rows
    levels = np.random.default_rng(5).integers(0, 256, (1, 3, px, px)).astype(np.float32)
    mean, std = (np.array(t, np.float32).reshape(3, 1, 1) for t in _IMAGENET)
    inputs = VisionInputs((levels / 255 - mean) / std, (1, 1, 1), rows)
    found, expected = of_bytes.encode(inputs).rows, plain.encode(inputs).rows
    widened = [r.astype(np.uint32) << 16 for r in (found, expected)]
    np.testing.assert_allclose(*(w.view(np.float32) for w in widened), rtol=0.02, atol=0.02)
    feed = of_bytes._vision._feed(inputs.pixels[0].reshape(3, -1))
    np.testing.assert_array_equal(feed.T, levels[0].reshape(3, -1))


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_features_that_are_no_numbers_never_reach_the_caches(load):
    engine = load()
    px, rows = engine.limits.tile_px, engine._vision.shapes.rows
    pixels = np.full((1, 3, px, px), np.nan, np.float32)
    with pytest.raises(DeviceError, match=r'vit.axmodel: the features are not numbers'):
        engine.encode(VisionInputs(pixels, (1, 1, 1), rows))


def test_pixels_of_another_size_are_refused(load):
    engine = load()
    with pytest.raises(EdgeVlmError, match=r'expected \(tiles, 3, 56, 56\)'):
        engine.encode(VisionInputs(np.zeros((1, 3, 64, 64), np.float32), (1, 1, 1), 4))


# --- bad input ---------------------------------------------------------------------------------


def test_a_prompt_one_token_too_long_is_refused_with_the_numbers(load):
    engine = load()
    room = engine.limits.context_tokens
    part, _ = question(engine, words=(room + 2) // 2)
    assert len(part) == room + 1
    with pytest.raises(PromptTooLongError, match=f'{room + 1} tokens do not fit after 0.*{room}'):
        engine.prefill(part, {})
    with pytest.raises(PromptTooLongError):
        engine.plan_prefill(room + 1)
    engine.prefill(part.slice(0, room), {})
    with pytest.raises(PromptTooLongError, match=f'1 tokens do not fit after {room}'):
        engine.decode(1, room)


def test_a_token_without_embedding_is_refused(load):
    engine = load()
    with pytest.raises(EdgeVlmError, match='token id 262 is not in the vocabulary of 262'):
        engine.decode(262, 0)


def test_a_missing_layer_is_named(load, write_set, set_files):
    files = set_files('tiny')
    lost = files.weights['layers.1'].with_name('gone.axmodel')
    weights = {**files.weights, 'layers.1': lost}
    with pytest.raises(ModelFileError, match=r'gone\.axmodel: no such file \(layers.1'):
        load(files=replace(files, weights=weights))
    with pytest.raises(ModelFileError, match=r'no layers\.1 among the model files'):
        load(files=without(files, 'layers.1'))
    with pytest.raises(ModelFileError, match=r'no layers\.\d among .*says \d layers'):
        load('tiny-missing-layer')


@pytest.mark.parametrize('part', ['post', 'embed_tokens', 'vision_encoder'])
def test_a_missing_part_is_named(load, set_files, part):
    with pytest.raises(ModelFileError, match=f'no {part} among the model files'):
        load(files=without(set_files('tiny'), part))


def test_builds_mixed_in_one_folder_are_told_and_leave_nothing_behind(load):
    with pytest.raises(ModelFileError, match=r'l1_together.*expected 10 as in .*l0_.*found 18'):
        load('tiny-mixed-builds')
    assert held_bytes() == 0


def test_a_wrong_vision_file_is_told(load):
    with pytest.raises(ModelFileError, match=r'internvl_vit.axmodel: output: .*width 64.*96'):
        load('tiny-wrong-vit')
    assert held_bytes() == 0


def test_a_layer_is_no_vision_tower(load, set_files):
    files = set_files('tiny')
    weights = {**files.weights, 'vision_encoder': files.weights['layers.0']}
    with pytest.raises(ModelFileError, match='no vision model'):
        load(files=replace(files, weights=weights))


def test_a_config_of_another_model_is_refused(load, set_files, tmp_path):
    for text, message in (
        ('{"llm_config": {"num_hidden_layers": 9}}', r'no layers\.\d'),
        ('{"llm_config": {"hidden_size": 65}}', r'l0_.*: input: expected width 65 .*found 64'),
        ('{"force_image_size": 448}', r'vit.axmodel: expected images of 448 px'),
        (
            '{"force_image_size": 448, "vision_config": {"patch_size": 8}}',
            r'vit.axmodel: expected images of 448 px',
        ),
        ('[]', r'config.json holds \[\], not a JSON object'),
    ):
        (tmp_path / 'config.json').write_text(text)
        with pytest.raises(ModelFileError, match=message):
            load(files=replace(set_files('tiny'), tokenizer_folder=tmp_path))
    assert held_bytes() == 0


def test_a_vision_file_for_other_tiles_is_taken_where_patches_make_its_rows(
    load, set_files, tmp_path
):
    """InternVL2.5-1B of the AX630C: compiled for 364 px, config.json says 448."""
    config = '{"force_image_size": 448, "vision_config": {"patch_size": 14}}'
    (tmp_path / 'config.json').write_text(config)
    engine = load(files=replace(set_files('tiny'), tokenizer_folder=tmp_path))
    assert engine.limits.tile_px == 56
    assert engine._vision.shapes.rows == (56 // 14 // 2) ** 2


def test_an_sdk_without_bfloat16_is_told(load, monkeypatch):
    monkeypatch.setenv('EDGE_VLM_AX_BF16', '0')
    with pytest.raises(DeviceError, match=r'SDK 2\.18 or newer'):
        load()


def test_a_set_too_large_for_the_free_memory_is_refused_before_loading(load, monkeypatch):
    opened = []
    monkeypatch.setattr('edge_vlm_ros.engines.axera.engine.free_bytes_of', lambda *_: 10 << 10)
    monkeypatch.setattr(OpenedSessions, 'look_into', lambda self, path: opened.append(path))
    with pytest.raises(DeviceError, match=r'needs \d+ MiB of chip memory.*0 MiB are free'):
        load()
    assert opened == []


def test_a_set_whose_first_layers_take_too_much_is_given_up(load, monkeypatch):
    monkeypatch.setattr('edge_vlm_ros.engines.axera.memory_guard._LAYERS_FOR_MEASURE', 3)
    free = iter([1 << 40, 1 << 40, 100 << 20])
    monkeypatch.setattr('edge_vlm_ros.engines.axera.engine.free_bytes_of', lambda *_: next(free))
    loaded = []
    with pytest.raises(DeviceError, match=r'for the rest, as its first 3 layers do'):
        load(on_loaded=lambda done, total: loaded.append(done))
    assert loaded[-1] == 4  # the vision tower and three layers
    assert held_bytes() == 0


def test_a_chip_that_fills_up_while_loading_is_left_empty(load, monkeypatch):
    monkeypatch.setenv('EDGE_VLM_AX_CMM_BYTES', '150000')
    with pytest.raises(DeviceError, match='the chip has no memory left'):
        load()
    assert held_bytes() == 0


def test_an_unknown_option_is_refused(load):
    kinds = 'backend is auto, in_place or portable, not'
    for options, message in (
        ({'backend': 'fast'}, f"{kinds} 'fast'"),
        ({'backend': 1}, f'{kinds} 1'),
        ({'threads': 4}, 'chip ax650 has no option threads; chip ax650 takes backend'),
    ):
        with pytest.raises(BadRequestError, match=message):
            load(options=options)


def test_in_place_where_it_does_not_work_is_refused(load, monkeypatch):
    with pytest.raises(DeviceError, match='backend in_place was asked for'):
        load(options={'backend': 'in_place'})  # the stand-in's Python library has no C functions


def test_on_a_board_nothing_is_said_of_cards(load, caplog):
    load()
    assert 'ms per token' not in caplog.text


def test_without_the_c_library_the_portable_way_is_taken_and_said(load, caplog):
    assert load(options={'backend': 'auto'}).backend_name == 'portable'
    assert 'slower than the chip allows' in caplog.text


@pytest.mark.parametrize(('options', 'warnings'), [(PORTABLE, 0), ({'backend': 'auto'}, 1)])
def test_on_a_card_it_is_said_what_copies_cost(stand_in, set_files, caplog, options, warnings):
    caplog.set_level('INFO')
    stand_in(providers='axcl', cards=1)
    open_engine('ax650', set_files('tiny'), options=options).close()
    assert [record.levelname for record in caplog.records].count('WARNING') == warnings
    (said,) = [record for record in caplog.records if 'ms per token' in record.message]
    assert float(re.search(r'makes ([\d.]+) ms', said.message)[1]) > 0


def test_a_failing_chip_is_an_error_and_the_next_question_works(load, monkeypatch):
    engine = load()
    part, _ = question(engine)
    from axengine._python_library import LEDGER

    monkeypatch.setenv('EDGE_VLM_AX_RUNS', str(LEDGER.runs + 1))
    with pytest.raises(DeviceError, match='the chip failed'):
        engine.prefill(part, {})
    assert engine.kv.length == 0
    monkeypatch.delenv('EDGE_VLM_AX_RUNS')
    engine.prefill(part, {})
    assert engine.kv.length == len(part)


def test_a_closed_engine_says_so_and_has_freed_everything(load):
    engine = load()
    assert held_bytes() > 0
    engine.close()
    engine.close()
    assert held_bytes() == 0
    with pytest.raises(NotReadyError):
        engine.decode(1, 0)


# --- inspect -----------------------------------------------------------------------------------


def test_inspect_reads_what_the_files_say(stand_in, set_files):
    stand_in()
    report = inspect_model('ax650', set_files('tiny-17'))
    facts = dict(report.facts)
    assert facts['prompt in chunks'].startswith('272 tokens')
    assert facts['SDK'] == '2.18 or newer'
    (table,) = report.tables
    assert len(table.rows) == 18
    assert table.rows[0] == ('0', 'decode', '1', '319')
    assert table.rows[2] == ('2', 'prefill', '16', '16')
    assert held_bytes() == 0
