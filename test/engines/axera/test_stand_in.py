"""The stand-in refuses what axengine refuses, has its defects, and computes the right thing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from support.axera.axmodel_file import (
    Axmodel,
    AxmodelError,
    Group,
    Tensor,
    read_axmodel,
    write_axmodel,
)
from support.axera.stub.build import build_stub

pytestmark = pytest.mark.axera

BF16 = np.dtype(ml_dtypes.bfloat16)
LAYER = 'qwen2_p16_l0_together.axmodel'
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(params=['python', 'c'])
def axengine(request, stand_in):
    """The stand-in on either library; both must look alike from above."""
    if request.param == 'python':
        return stand_in()
    return stand_in(library=build_stub())


@pytest.fixture
def layer(axengine, write_set):
    return axengine.InferenceSession(str(write_set('tiny') / LAYER))


def zeros(session, group=0):
    return {node.name: np.zeros(node.shape, node.dtype) for node in session.get_inputs(group)}


# --- what is told of a model --------------------------------------------------------------------


def test_tensors_are_told_by_name_dtype_and_shape(layer):
    told = [(node.name, node.dtype, node.shape) for node in layer.get_inputs(2)]
    assert told == [
        ('K_cache', BF16, [1, 16, 32]),
        ('V_cache', BF16, [1, 16, 32]),
        ('indices', np.dtype(np.uint32), [1, 16]),
        ('input', BF16, [1, 16, 64]),
        ('mask', BF16, [1, 16, 32]),
    ]
    assert [node.name for node in layer.get_outputs(2)] == ['K_cache_out', 'V_cache_out', 'output']


def test_past_the_last_group_comes_one_error_and_then_another(layer):
    groups = 10
    for get in (layer.get_inputs, layer.get_outputs):
        assert get(groups - 1)
        with pytest.raises(IndexError):
            get(groups)
        with pytest.raises(ValueError, match='out of range'):
            get(groups + 1)
        assert get(-1)[0].shape == get(groups - 1)[0].shape, 'negative numbers wrap'


def test_the_first_prefill_group_has_dummies_as_wide_as_the_hidden_state(layer):
    assert [node.shape for node in layer.get_inputs(1)[:2]] == [[1, 1, 64], [1, 1, 64]]


def test_it_prints_when_imported_and_when_a_model_is_opened(stand_in, write_set, capfd):
    axengine = stand_in()
    assert '[INFO] Available providers:' in capfd.readouterr().out
    axengine.InferenceSession(str(write_set('tiny') / LAYER))
    printed = capfd.readouterr().out
    assert 'Chip type: ChipType.MC50' in printed
    assert 'Compiler version' in printed


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'array'),
    [
        ('input', np.zeros((1, 1, 63), BF16)),
        ('input', np.zeros((1, 64), BF16)),
        ('input', np.zeros((1, 1, 64), np.uint16)),
        ('indices', np.zeros((1, 1), np.int64)),
    ],
)
def test_another_shape_or_dtype_is_refused(layer, name, array):
    with pytest.raises(AssertionError, match=rf'model inputs\({name}\) expect shape'):
        layer.run(None, {**zeros(layer), name: array})


def test_names_of_group_0_are_wanted_whatever_group_runs(axengine, write_set):
    session = axengine.InferenceSession(str(write_set('tiny-suffixed') / LAYER))
    feed = zeros(session, 3)
    assert 'mask_3' in feed
    with pytest.raises(ValueError, match='mask'):
        session.run(None, feed, shape_group=3)
    either = {**zeros(session), **feed}  # what group 3 does not know is passed over
    assert session.run(None, either, shape_group=3)[2].shape == (1, 16, 64)
    with pytest.raises(ValueError, match='not in model outputs'):
        session.run(['output_3'], either, shape_group=3)


def test_a_missing_input_is_refused(layer):
    feed = zeros(layer)
    del feed['mask']
    with pytest.raises(ValueError, match=r"Required inputs \(\['mask'\]\)"):
        layer.run(None, feed)


@pytest.mark.parametrize(('group', 'error'), [(10, IndexError), (11, ValueError)])
def test_a_run_of_an_unknown_group_is_refused(layer, group, error):
    with pytest.raises(error):
        layer.run(None, zeros(layer), shape_group=group)
    with pytest.raises(ValueError, match='Invalid shape group'):
        layer.run(None, zeros(layer), shape_group=-1)


def test_some_of_the_outputs_cannot_be_asked_for_and_a_circle_comes_back_turned(layer):
    with pytest.raises(ValueError, match='not in list'):
        layer.run(['output'], zeros(layer))
    shapes = {'K_cache_out': (1, 1, 32), 'V_cache_out': (1, 1, 32), 'output': (1, 1, 64)}
    circle = ['V_cache_out', 'output', 'K_cache_out']
    found = [array.shape for array in layer.run(circle, zeros(layer))]
    assert found != [shapes[name] for name in circle]
    assert found == [(1, 1, 64), (1, 1, 32), (1, 1, 32)]


def test_an_array_in_fortran_order_is_copied_as_it_lies(layer):
    rng = np.random.default_rng(0)
    feed = zeros(layer, 1)
    feed['input'] = rng.normal(size=(1, 16, 64)).astype(BF16)
    right = layer.run(None, feed, shape_group=1)[2]
    feed['input'] = np.asfortranarray(feed['input'])
    assert (layer.run(None, feed, shape_group=1)[2] != right).any()


def test_outputs_are_arrays_of_their_own(layer):
    first = layer.run(None, zeros(layer))[2]
    kept = first.copy()
    feed = zeros(layer)
    feed['input'] += 1
    assert (layer.run(None, feed)[2] != first).any()
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


def test_bytes_are_not_loaded_on_the_chip(axengine, write_set):
    with pytest.raises(AttributeError, match='_model_name'):
        axengine.InferenceSession((write_set('tiny') / LAYER).read_bytes())
    with pytest.raises(TypeError, match='Unable to load model'):
        axengine.InferenceSession(7)


def test_a_damaged_file_is_refused(axengine, tmp_path):
    path = tmp_path / 'a.axmodel'
    path.write_bytes(b'<html>404')
    with pytest.raises(RuntimeError, match='Failed to'):
        axengine.InferenceSession(str(path))


def test_a_model_of_another_chip_is_refused(axengine, write_set):
    path = write_set('tiny-ax630c') / LAYER
    with pytest.raises(RuntimeError, match=r'Failed to (load model|get model type)'):
        axengine.InferenceSession(str(path))


def test_a_chip_of_the_smaller_kind_tells_so(stand_in, write_set, capfd):
    axengine = stand_in(chip='ax630c')
    axengine.InferenceSession(str(write_set('tiny-ax630c') / LAYER))
    assert 'Chip type: ChipType.MC20E' in capfd.readouterr().out
    with pytest.raises(RuntimeError, match='Failed to load model'):
        axengine.InferenceSession(str(write_set('tiny') / LAYER))


# --- what is not there --------------------------------------------------------------------------


@pytest.mark.parametrize('environment', [{'providers': ''}, {'library': '/nowhere'}])
def test_without_a_library_the_import_fails(stand_in, environment):
    with pytest.raises(ImportError, match='No providers found'):
        stand_in(**environment)


def test_an_old_sdk_does_not_know_bfloat16(stand_in, write_set):
    axengine = stand_in(bf16=0)
    with pytest.raises(ValueError, match='Unsupported data type'):
        axengine.InferenceSession(str(write_set('tiny') / LAYER))


def test_providers_are_a_name_or_a_list(axengine, write_set):
    path = str(write_set('tiny') / LAYER)
    engine, card = axengine.get_all_providers()
    assert axengine.InferenceSession(path, providers=[card, engine]).get_providers() == engine
    assert axengine.InferenceSession(path, providers=engine).get_providers() == engine
    with pytest.raises(ValueError, match='No available provider'):
        axengine.InferenceSession(path, providers=(engine,))
    for absent in (card, [card]):
        with pytest.raises(ValueError, match='not available'):
            axengine.InferenceSession(path, providers=absent)


# A session on a card that could not be opened fails once more when it is thrown away.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_card_is_chosen_by_its_number_in_the_list(stand_in, write_set):
    axengine = stand_in(providers='axcl', cards=2)
    path = write_set('tiny') / LAYER
    for number in (0, 1):
        axengine.InferenceSession(str(path), provider_options=[{'device_id': number}])
    with pytest.raises(RuntimeError, match='Device index 2 is out of range, total 2'):
        axengine.InferenceSession(str(path), provider_options=[{'device_id': 2}])
    ignored = [(axengine.axclrt_provider_name, {'device_id': 2})]
    axengine.InferenceSession(str(path), providers=ignored)
    with pytest.raises(AttributeError, match='encode'):
        axengine.InferenceSession(path)


def test_a_card_computes_as_the_chip_does(stand_in, write_set):
    axengine = stand_in(providers='engine,axcl')
    path = str(write_set('tiny') / LAYER)
    sessions = [
        axengine.InferenceSession(path, providers=[name]) for name in axengine.get_all_providers()
    ]
    feed = zeros(sessions[0], 1)
    feed['input'] = np.random.default_rng(0).normal(size=(1, 16, 64)).astype(BF16)
    for results in zip(*(s.run(None, feed, shape_group=1) for s in sessions), strict=True):
        np.testing.assert_array_equal(*results)


# --- memory -------------------------------------------------------------------------------------


def test_a_masked_row_that_is_not_a_number_poisons(layer):
    feed = zeros(layer)
    feed['mask'][..., :-1] = -65536
    assert np.isfinite(layer.run(None, feed)[2].astype(float)).all()
    for name in ('K_cache', 'V_cache'):
        spoiled = {**feed, name: feed[name].copy()}
        spoiled[name][0, 200] = np.nan
        assert np.isnan(layer.run(None, spoiled)[2].astype(float)).any(), name


def test_fresh_memory_is_not_a_number(stand_in, write_set):
    session = stand_in().InferenceSession(str(write_set('tiny') / LAYER))
    import ctypes

    raw = ctypes.string_at(session._sess._io[0].pInputs[0].pVirAddr, 64)
    assert np.isnan(np.frombuffer(raw, BF16).astype(float)).all()


def test_memory_is_only_freed_by_those_who_free_it(stand_in, write_set):
    axengine = stand_in()
    session = axengine.InferenceSession(str(write_set('tiny') / LAYER))
    from axengine import _axe
    from axengine._python_library import LEDGER

    held = LEDGER.held_bytes
    # Largest shapes over the groups: caches [1, 319, 32], 16 indices, 16 rows of 64 twice, a mask
    # of 16 x 144, and 16 rows of 32 twice.
    assert held == 2 * (2 * 319 * 32) + 4 * 16 + 2 * (2 * 16 * 64) + 2 * 16 * 144 + 2 * (
        2 * 16 * 32
    )
    inner, session = session._sess, None
    inner._unload()
    assert (LEDGER.held_bytes, LEDGER.handles) == (held, set())
    for phy, vir in inner._io_inputs_pool + inner._io_outputs_pool:
        assert _axe.sys_lib.AX_SYS_MemFree(phy[0], vir[0]) == 0
        assert _axe.sys_lib.AX_SYS_MemFree(phy[0], vir[0]) != 0, 'freed twice'
    assert LEDGER.held_bytes == 0


def test_every_run_flushes_whole_buffers(stand_in, write_set):
    session = stand_in().InferenceSession(str(write_set('tiny') / LAYER))
    from axengine._python_library import LEDGER

    session.run(None, zeros(session))
    largest = 2 * (2 * 319 * 32) + 4 * 16 + 2 * 16 * 64 + 2 * 16 * 144
    assert LEDGER.flushed_bytes == largest


def test_too_little_memory_and_failing_runs(stand_in, write_set):
    axengine = stand_in(cmm_bytes=70_000, runs=1)
    session = axengine.InferenceSession(str(write_set('tiny') / 'qwen2_post.axmodel'))
    session.run(None, zeros(session))
    with pytest.raises(RuntimeError, match='Failed to run model'):
        session.run(None, zeros(session))
    path = str(write_set('tiny') / LAYER)
    kept = axengine.InferenceSession(path)
    with pytest.raises(RuntimeError, match='Failed to allocate memory'):
        axengine.InferenceSession(path)
    assert kept.get_providers() == axengine.axengine_provider_name


# --- what is computed ---------------------------------------------------------------------------


class Hand:
    """A set driven by hand, one token a step: the plainest loop there is."""

    def __init__(self, axengine, folder, weights):
        self.weights = weights
        paths = [folder / f'qwen2_p16_l{i}_together.axmodel' for i in range(len(weights.layers))]
        self.layers = [axengine.InferenceSession(str(path)) for path in paths]
        self.post = axengine.InferenceSession(str(folder / 'qwen2_post.axmodel'))
        self.capacity = self.layers[0].get_inputs(0)[0].shape[1]
        shape = (len(paths), 2, 1, self.capacity, weights.kv_width)
        self.caches = np.zeros(shape, BF16)

    def step(self, row, place, *, seen=None, position=None):
        mask = np.full((1, 1, self.capacity + 1), -65536, BF16)
        mask[..., : place if seen is None else seen] = 0
        mask[..., -1] = 0
        hidden = row.astype(BF16).reshape(1, 1, -1)
        indices = np.full((1, 1), place if position is None else position, np.uint32)
        for caches, layer in zip(self.caches, self.layers, strict=True):
            key, value = caches
            feed = {'K_cache': key, 'V_cache': value, 'indices': indices}
            new_key, new_value, hidden = layer.run(None, {**feed, 'input': hidden, 'mask': mask})
            key[:, place], value[:, place] = new_key[0], new_value[0]
        return self.post.run(None, {'input': hidden})[0].ravel().astype(np.float64)


@pytest.fixture
def hand(axengine, write_set):
    from support.axera.weights import tiny_weights

    return Hand(axengine, write_set('tiny'), tiny_weights())


def test_steps_by_hand_give_the_reference_scores(hand):
    from support.axera.reference import Reference

    rows = hand.weights.table[np.random.default_rng(1).integers(0, 256, 24)]
    expected = Reference(hand.weights).logits(rows.astype(np.float64))
    found = np.stack([hand.step(row, place) for place, row in enumerate(rows)])
    assert np.abs(found - expected).max() < 0.06 * expected.std()


@pytest.mark.parametrize(
    'fault',
    [
        {'position': lambda place: place + 1},
        {'seen': lambda place: max(0, place - 1)},
        {'seen': lambda place: place + 1},
    ],
    ids=['positions', 'one row too few', 'one row too many'],
)
def test_a_wrong_mask_or_position_shows(hand, fault):
    from support.axera.reference import Reference

    rows = hand.weights.table[np.random.default_rng(1).integers(0, 256, 8)]
    expected = Reference(hand.weights).logits(rows.astype(np.float64))
    wrong = {name: value(7) for name, value in fault.items()}
    for place, row in enumerate(rows[:-1]):
        hand.step(row, place)
    found = hand.step(rows[7], 7, **wrong)
    assert np.abs(found - expected[-1]).max() > 0.2 * expected.std()


def test_the_demo_model_by_reference_is_the_demo_model_by_onnx():
    from support.axera.reference import Reference
    from support.axera.weights import demo_weights
    from support.tiny_model.prompts import random_prompt, scores

    from edge_vlm_ros.engines import open_engine
    from edge_vlm_ros.models import find_model

    engine = open_engine('cpu', find_model('cpu'), options={'threads': 1})
    part = random_prompt(3, images=0, rows=16, placeholder=1000)
    engine.prefill(part, {})
    reference = Reference(demo_weights())
    expected = reference.logits(reference.embed(part, {}), last=1)[0]
    np.testing.assert_allclose(scores(engine), expected, atol=2e-3)
    engine.close()


# --- the file format and the sets ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        (b'AXSTUB 1', b'AXSTUB 9', 'starts with'),
        (b'kind layer', b'kind cake', 'kind'),
        (b'chip any', b'chip m57h', 'chip'),
        (b'group 5', b'group -5', 'microseconds'),
        (b'bf16', b'bf17', 'name, dtype and sizes'),
        (b'1 4 8', b'1 x 8', 'name, dtype and sizes'),
        (b'\nend\n', b'\nend', 'no line "end"'),
        (b'end\n', b'end\nPK nothing', 'npz'),
    ],
)
def test_a_damaged_header_is_named(tmp_path, old, new, message):
    tensor = Tensor('input', 'bf16', (1, 4, 8))
    model = Axmodel('layer', 'any', (Group((tensor,), (tensor,), delay_us=5),))
    path = write_axmodel(tmp_path / 'a.axmodel', model)
    assert read_axmodel(path) == model
    content = path.read_bytes()
    assert old in content
    with pytest.raises(AxmodelError, match=message):
        read_axmodel(content.replace(old, new))


def test_every_kind_of_set_can_be_written_and_read(write_set):
    from support.axera.sets import KINDS

    for kind in KINDS:
        folder = write_set(kind)
        models = [read_axmodel(path) for path in folder.rglob('*.axmodel')]
        assert {model.kind for model in models} == {'layer', 'post', 'vit'}
        held = sum(path.stat().st_blocks * 512 for path in folder.rglob('*'))
        assert held < 20e6, f'{kind} takes {held} bytes of disk'


def test_a_set_of_2b_sizes_has_the_published_shapes(write_set):
    folder = write_set('internvl3-2b')
    layers = sorted(folder.glob('qwen2_p128_l*_together.axmodel'))
    assert len(layers) == 28
    groups = read_axmodel(layers[0]).groups
    assert len(groups) == 18
    assert groups[0].inputs[0].shape == (1, 2559, 256)
    assert groups[17].inputs[4].shape == (1, 128, 2176)
    assert [groups[i].delay_us for i in (0, 1, 17)] == [2664, 7483, 52405]
    table = np.load(folder / 'model.embed_tokens.weight.npy', mmap_mode='r')
    assert table.shape == (151674, 1536)
    assert read_axmodel(folder / 'qwen2_post.axmodel').groups[0].outputs[0].shape[-1] == 151674


def test_a_set_is_written_from_the_command_line(tmp_path):
    command = [sys.executable, '-m', 'support.axera.sets', 'tiny-fixed', '--to', str(tmp_path)]
    folder = REPOSITORY / 'test'
    subprocess.run(command, check=True, cwd=folder, timeout=60, capture_output=True)
    group = read_axmodel(tmp_path / 'qwen2_p40_l2_together.axmodel').groups[1]
    assert group.inputs[0].shape == (1, 1, 64)


def test_a_layer_without_weights_computes_nothing(axengine, tmp_path):
    tensor = Tensor('input', 'f32', (1, 4))
    model = Axmodel('layer', 'any', (Group((tensor,), (replace(tensor, name='output'),)),))
    session = axengine.InferenceSession(str(write_axmodel(tmp_path / 'a.axmodel', model)))
    assert session.run(None, {'input': np.ones((1, 4), np.float32)})[0].shape == (1, 4)
