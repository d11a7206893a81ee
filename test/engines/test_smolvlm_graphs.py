"""SmolVLM's public graphs on the CPU engine: the traps of their layout, and all their variants."""

from __future__ import annotations

import json
import logging
import re
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from support.engine_laws import broken_laws
from support.families import load_family
from support.reuse_laws import FamilyPrompts, Watcher, block_changed, wrong_answers
from support.tiny_model.prompts import decode_greedily, prefill_in_cuts, random_inputs

from edge_vlm_ros.core import (
    EdgeVlmError,
    Frame,
    FrameSource,
    ModelFileError,
    ShownAs,
    VisionInputs,
    join_parts,
)
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.cpu.pace import Pace, choose_threads, fastest_s
from edge_vlm_ros.models import find_model

PX, ROWS = 32, 4
VARIANTS = ['fp16', 'int8', 'uint8', 'quantized', 'q4', 'q4f16', 'bnb4']


def open_folder(folder, **options):
    options = {'threads': 1, **options}
    return open_engine('cpu', find_model('cpu', str(folder)), options=options)


@pytest.fixture
def engine(smolvlm_folder):
    opened = open_folder(smolvlm_folder)
    yield opened
    opened.close()


@pytest.fixture
def spoiled(smolvlm_folder, tmp_path):
    """Give a copy of the model, to be spoiled."""
    return shutil.copytree(smolvlm_folder, tmp_path / 'spoiled')


@pytest.fixture
def make(tmp_path):
    """Write a model with other sizes."""
    from support.tiny_smolvlm.config import TinySmolVlmConfig
    from support.tiny_smolvlm.make import make_tiny_smolvlm

    return lambda **sizes: make_tiny_smolvlm(tmp_path / 'made', TinySmolVlmConfig(**sizes))


def vision_graph(folder):
    return folder / 'onnx' / 'vision_encoder.onnx'


def picture(seed=0, width=64, height=48):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Frame(pixels, 0, FrameSource(''))


def tell(engine, folder, frames, *, cuts=()):
    """Ask with the family that belongs to the folder; return tokens and their scores."""
    family = load_family(folder, engine.limits, max_tiles=4)
    inputs = [family.preprocess(frame) for frame in frames]
    prefix = family.render_prefix(inputs, '')
    suffix = family.render_suffix('What is it?', prefix.next_position, follows_images=bool(frames))
    part = join_parts([prefix, suffix])
    features = {number: engine.encode(one) for number, one in enumerate(inputs)}
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part, features, cuts)
    return decode_greedily(engine, part.next_position, 8)


# --- the layout ----------------------------------------------------------------------------------


def test_limits_are_read_from_files_that_leave_sizes_open(engine, smolvlm_folder):
    shapes = {i.name: i.shape for i in onnxruntime.InferenceSession(
        vision_graph(smolvlm_folder), providers=['CPUExecutionProvider']
    ).get_inputs()}  # fmt: skip
    assert shapes['pixel_values'] == ['batch_size', 'num_images', 3, 'height', 'width']
    limits = engine.limits
    assert (limits.tile_px, limits.context_tokens) == (PX, 2048)
    assert (limits.vocab_size, limits.hidden_size, limits.hidden_dtype) == (299, 64, 'float32')


def test_the_graph_drops_images_of_zeros_and_the_engine_loads_it_all_the_same(
    engine, smolvlm_folder
):
    session = onnxruntime.InferenceSession(
        vision_graph(smolvlm_folder), providers=['CPUExecutionProvider']
    )
    pixels = np.ones((1, 3, 3, PX, PX), np.float32)
    pixels[0, 1] = 0
    feeds = {'pixel_values': pixels, 'pixel_attention_mask': np.ones((1, 3, PX, PX), bool)}
    (features,) = session.run(None, feeds)
    assert len(features) == 2, 'the trap is in the fixture'
    assert engine.encode(VisionInputs(pixels[0, :1], (1, 0, 0), ROWS)).rows.shape == (ROWS, 64)


def test_a_tile_of_zeros_is_an_error_of_its_own_question(engine):
    zeros = VisionInputs(np.zeros((1, 3, PX, PX), np.float32), (1, 0, 0), ROWS)
    with pytest.raises(EdgeVlmError, match='gave 0 rows, the prompt has room for 4'):
        engine.encode(zeros)
    assert engine.encode(random_inputs(0, px=PX, rows=ROWS)).tokens == ROWS


@pytest.mark.parametrize('level', [0, 127, 128, 255])
def test_plain_frames_are_encoded_whatever_their_brightness(engine, smolvlm_folder, level):
    family = load_family(smolvlm_folder, engine.limits)
    plain = Frame(np.full((20, 30, 3), level, np.uint8), 0, FrameSource(''))
    assert engine.encode(family.preprocess(plain)).tokens % ROWS == 0


def test_tile_by_tile_gives_the_rows_of_one_joint_run(engine, smolvlm_folder):
    inputs = random_inputs(1, px=PX, rows=5 * ROWS, tiles=5)
    session = onnxruntime.InferenceSession(
        vision_graph(smolvlm_folder), providers=['CPUExecutionProvider']
    )
    mask = np.ones((1, 5, PX, PX), bool)
    feeds = {'pixel_values': inputs.pixels[None], 'pixel_attention_mask': mask}
    (joint,) = session.run(None, feeds)
    np.testing.assert_allclose(engine.encode(inputs).rows, joint.reshape(-1, 64), atol=1e-5)


def test_a_mask_of_numbers_is_fed_as_numbers(spoiled):
    model = onnx.load(vision_graph(spoiled))
    (mask,) = [one for one in model.graph.input if one.name == 'pixel_attention_mask']
    mask.type.tensor_type.elem_type = onnx.TensorProto.INT64
    cast = next(n for n in model.graph.node if 'pixel_attention_mask' in n.input)
    cast.input[list(cast.input).index('pixel_attention_mask')] = 'mask_of_bool'
    turned = onnx.helper.make_node(
        'Cast', ['pixel_attention_mask'], ['mask_of_bool'], to=onnx.TensorProto.BOOL
    )
    model.graph.node.insert(0, turned)
    onnx.save(model, vision_graph(spoiled))
    assert open_folder(spoiled).limits.tile_px == PX


def test_sizes_in_the_graph_are_compared_with_config(make):
    folder = make(has_fixed_sizes=True)
    assert open_folder(folder).limits.tile_px == PX
    change_config(folder, vision_config={'image_size': 64, 'patch_size': 8})
    with pytest.raises(ModelFileError, match='pixel_values: expected 32 px'):
        open_folder(folder)


def change_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_inputs(folder, change):
    model = onnx.load(vision_graph(folder))
    change({one.name: one for one in model.graph.input})
    onnx.save(model, vision_graph(folder))


def test_a_scale_that_is_not_the_graphs_is_refused(spoiled):
    change_config(spoiled, scale_factor=4)
    with pytest.raises(ModelFileError, match=r'image_features: expected 1 rows a tile'):
        open_folder(spoiled)


# --- bad input -----------------------------------------------------------------------------------


def test_a_folder_of_an_unknown_type_is_refused_with_the_known_ones(spoiled):
    change_config(spoiled, model_type='lfm2_vl')
    with pytest.raises(ModelFileError, match=r'"lfm2_vl", expected one of idefics3, '):
        load_family(spoiled)


def test_pixels_without_a_mask_have_four_dimensions(spoiled, tiny_folder):
    shutil.copy(vision_graph(tiny_folder), vision_graph(spoiled))
    with pytest.raises(ModelFileError, match=r'vision_encoder.onnx: pixel_values: expected 56 px'):
        open_folder(spoiled)


def test_a_graph_with_an_input_that_nobody_knows_is_refused(spoiled):
    model = onnx.load(vision_graph(spoiled))
    shape = onnx.helper.make_tensor_value_info('spatial_shapes', onnx.TensorProto.INT64, [1, 2])
    model.graph.input.append(shape)
    onnx.save(model, vision_graph(spoiled))
    with pytest.raises(ModelFileError, match=r'spatial_shapes: expected only inputs'):
        open_folder(spoiled)


# --- variants ------------------------------------------------------------------------------------


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_of_the_files_is_run(engine, smolvlm_folder, tmp_path, variant):
    from support.tiny_smolvlm.variants import make_variant

    folder = make_variant(smolvlm_folder, variant, tmp_path / variant)
    opened = open_folder(folder)
    assert opened.limits.hidden_dtype == (
        'float16' if 'f16' in variant or variant == 'fp16' else 'float32'
    )
    tokens, rows = tell(opened, folder, [picture()])
    expected, expected_rows = tell(engine, smolvlm_folder, [picture()])
    assert cosine(rows[0], expected_rows[0]) > (0.96 if '4' in variant else 0.999)
    if '4' not in variant:
        assert tokens == expected
    opened.close()


def cosine(one, other):
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_weights_may_lie_beside_the_graphs(engine, smolvlm_folder, spoiled):
    from support.tiny_smolvlm.variants import put_weights_beside

    beside = put_weights_beside(spoiled)
    assert all(path.stat().st_size > 10_000 for path in beside)
    found = tell(open_folder(spoiled), spoiled, [picture()])
    assert found[0] == tell(engine, smolvlm_folder, [picture()])[0]


@pytest.mark.parametrize('number', range(3))
def test_a_missing_file_of_weights_is_named(spoiled, number):
    from support.tiny_smolvlm.variants import put_weights_beside

    missing = put_weights_beside(spoiled)[number]
    missing.unlink()
    with pytest.raises(ModelFileError, match=missing.name):
        open_folder(spoiled)


def test_a_variant_that_this_onnx_runtime_cannot_run_is_refused(spoiled):
    """As of a newer transformers.js: an operator that is not there."""
    path = vision_graph(spoiled)
    model = onnx.load(path)
    next(n for n in model.graph.node if n.op_type == 'Tanh').op_type = 'MatMulNBits2'
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r'vision_encoder.onnx: ONNX Runtime cannot load it'):
        open_folder(spoiled)


# --- laws ----------------------------------------------------------------------------------------


def test_the_engine_keeps_the_laws_with_these_graphs(smolvlm_folder):
    opened = open_folder(smolvlm_folder, context_tokens=48)
    assert broken_laws(opened, rows=ROWS, except_for=frozenset()) == []


@pytest.mark.parametrize('cuts', [(1,), (30,), (7, 40), (10, 20, 30, 40)])
def test_where_a_prompt_is_cut_changes_nothing(engine, smolvlm_folder, cuts):
    """Inside a tile, between tiles, in the words."""
    whole, rows = tell(engine, smolvlm_folder, [picture()])
    tokens, found = tell(engine, smolvlm_folder, [picture()], cuts=cuts)
    assert tokens == whole
    np.testing.assert_allclose(found, rows, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('seed', range(3))
def test_answers_are_those_from_an_empty_cache(smolvlm_folder, seed):
    opened = open_folder(smolvlm_folder, prefill_chunk=24)
    family = load_family(smolvlm_folder, opened.limits)

    def scene(number):
        pixels = random_inputs(seed + number // 2, px=PX, rows=ROWS).pixels
        return VisionInputs(
            block_changed(pixels, number, PX // 4), (1, 0, 0), ROWS, shown_as=ShownAs.AMONG_OTHERS
        )

    asked = Watcher(opened, FamilyPrompts(family), scene, seed).run(30)
    wrong = wrong_answers(
        opened, asked, lambda told, expected: np.allclose(told, expected, atol=1e-3)
    )
    opened.close()
    assert wrong == []


# --- what is borne -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('tile_s', 'token_s', 'runs', 'tiles'),
    [
        (1.2, 0.001, 1, 1),  # SmolVLM-256M int8 on one core, measured with random weights
        (5.0, 0.1, 1, 1),
        (0.6, 0.001, 2, 1),
        (0.35, 0.0005, 5, 4),
        (0.1, 0.0005, 15, 14),
        (1e-4, 1e-5, 64, 63),
    ],
)
def test_a_default_makes_the_first_word_come_within_two_seconds(tile_s, token_s, runs, tiles):
    pace = Pace(tile_s, token_s, 64)
    assert (pace.runs, pace.tiles_per_frame) == (runs, tiles)
    assert pace.first_word_s(runs) <= 2.0 or runs == 1
    assert pace.first_word_s(runs + 1) > 2.0 or runs == 64


def test_what_is_borne_is_said_in_the_log(smolvlm_folder, caplog):
    with caplog.at_level(logging.INFO, 'edge_vlm_ros.engines.cpu.engine'):
        limits = open_folder(smolvlm_folder).limits
    assert f'tiles of a frame alone {limits.tiles_per_frame}, ' in caplog.text
    assert f'frames of a clip {limits.frames_per_question}' in caplog.text


def test_a_run_is_tried_a_few_times_at_most():
    runs = []
    assert fastest_s(lambda: runs.append(1)) >= 0
    assert 1 <= len(runs) <= 3


@pytest.mark.parametrize(
    ('cores', 'seconds', 'threads'),
    [
        (1, {}, 1),
        (3, {}, 3),
        (4, {2: 1.0, 4: 0.95}, 2),  # the same cores twice
        (4, {2: 1.0, 4: 0.55}, 4),
        (7, {3: 1.0, 7: 1.3}, 3),
    ],
)
def test_threads_are_chosen_by_measurement_and_leave_cores_where_that_costs_nothing(
    cores, seconds, threads
):
    assert choose_threads(cores, seconds.__getitem__) == threads


def test_of_many_cores_the_engine_measures_both_ways(smolvlm_folder, monkeypatch, caplog):
    monkeypatch.setattr('edge_vlm_ros.engines.cpu.engine.usable_cores', lambda: 4)
    with caplog.at_level(logging.INFO, 'edge_vlm_ros.engines.cpu.engine'):
        open_folder(smolvlm_folder, threads=0).close()
    assert re.search(r': [24] threads, ', caplog.text)


def test_rows_of_the_cache_are_handed_on_without_a_copy(engine, smolvlm_folder):
    """What a run gives is what the next one takes: only ONNX Runtime itself copies rows."""
    graph, given, taken = engine._decoder._graph, [], []

    class Watched:
        def __getattr__(self, name):
            return getattr(graph, name)

        def run(self, names, feeds):
            taken.append([value for name, value in feeds.items() if name.startswith('past')])
            outputs = graph.run(names, feeds)
            given.append(outputs[1:])
            return outputs

    engine._decoder._graph = Watched()
    tell(engine, smolvlm_folder, [picture()], cuts=(20,))
    assert len(taken) > 8
    for outputs, inputs in zip(given, taken[1:], strict=False):
        assert all(one is other for one, other in zip(outputs, inputs, strict=True))
    assert all(value.flags.c_contiguous for inputs in taken for value in inputs)
