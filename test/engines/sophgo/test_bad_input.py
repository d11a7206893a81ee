"""What cannot run is refused at the earliest moment, with a word on what to do."""

import json
import shutil
import struct
from itertools import permutations

import numpy as np
import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import GREEDY, Bench, model_files, open_fixture
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.core import (
    BadRequestError,
    DeviceError,
    ModelFileError,
    ModelFiles,
    NotReadyError,
    SamplingOptions,
)
from edge_vlm_ros.engines import inspect_model, open_engine
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel

STATIC = 'internvl3_static_bf16_bm1684x'
SAMPLE = 'internvl3_sample_bf16_bm1684x'
on_emulator = pytest.mark.emulator


@pytest.fixture
def files(bmodel):
    return model_files(FIXTURES[STATIC], bmodel(STATIC))


def with_model(files, path, chip='bm1684x'):
    return ModelFiles(files.name, chip, path.parent, files.tokenizer_folder, {'model': path})


# -- the file alone tells: no library, no device --------------------------------------------------


def test_a_bmodel_of_the_other_chip_is_refused_before_the_library_is_looked_for(files):
    other = with_model(files, files.weights['model'], 'bm1688')
    with pytest.raises(ModelFileError, match='compiled for BM1684X, this is chip BM1688'):
        open_engine('bm1688', other)


@pytest.mark.parametrize('left', [0, 40, 64, 3000, 100_000, -1])
def test_a_truncated_bmodel_is_refused(files, tmp_path, left):
    whole = files.weights['model'].read_bytes()
    path = tmp_path / 'cut.bmodel'
    path.write_bytes(whole[: left if left >= 0 else len(whole) // 2])
    with pytest.raises(ModelFileError, match=r'cut\.bmodel: truncated: '):
        open_engine('bm1684x', with_model(files, path))


def test_nets_that_point_behind_the_end_of_a_file_are_noticed(files, tmp_path):
    """A file above 4 GiB overflows its header's sizes: then only the nets tell."""
    whole = bytearray(files.weights['model'].read_bytes())
    path = tmp_path / 'large.bmodel'
    struct.pack_into('<I', whole, 12, 16)  # the header's size of the binary data
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(ModelFileError, match='truncated: its nets refer to'):
        read_bmodel(path)


@pytest.mark.parametrize('content', [b'PK\x03\x04' * 50, bytes(200), b'\xee\xaa\x55\xff' * 50])
def test_another_kind_of_file_is_refused(files, tmp_path, content):
    path = tmp_path / 'other.bmodel'
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r'other\.bmodel: (no bmodel|truncated)'):
        open_engine('bm1684x', with_model(files, path))


def test_a_damaged_description_is_refused_or_harmless(files, tmp_path):
    whole = files.weights['model'].read_bytes()
    described = struct.unpack_from('<I', whole, 8)[0]
    random = np.random.default_rng(1)
    path, refusals = tmp_path / 'damaged.bmodel', []
    for _ in range(150):
        broken = bytearray(whole)
        start = 64 + int(random.integers(described - 8))
        broken[start : start + 8] = random.bytes(8)
        path.write_bytes(broken)
        try:
            inspect_model('bm1684x', with_model(files, path))
        except ModelFileError as error:
            refusals.append(error.message)
    assert len(refusals) > 20
    assert all('damaged.bmodel: ' in message for message in refusals)


def test_a_bmodel_of_an_unknown_family_is_refused_with_what_was_expected(files, bmodel):
    hazard = bmodel('hazard_tagged_bm1688')
    with pytest.raises(ModelFileError, match=r'hazard.*expected nets block_0'):
        open_engine('bm1688', with_model(files, hazard, 'bm1688'))


def test_a_missing_file_is_named(files, tmp_path):
    with pytest.raises(ModelFileError, match=r'gone\.bmodel: no such file'):
        open_engine('bm1684x', with_model(files, tmp_path / 'gone.bmodel'))


def test_a_folder_holds_one_bmodel(files, tmp_path):
    folder = ModelFiles('m', 'bm1684x', tmp_path, files.tokenizer_folder)
    with pytest.raises(ModelFileError, match=r'one \.bmodel file wanted, found none'):
        open_engine('bm1684x', folder)
    for name in ('a.bmodel', 'b.bmodel'):
        shutil.copy(files.weights['model'], tmp_path / name)
    with pytest.raises(ModelFileError, match=r'found a\.bmodel, b\.bmodel'):
        open_engine('bm1684x', folder)
    (tmp_path / 'b.bmodel').unlink()
    assert dict(inspect_model('bm1684x', folder).facts)['file'].endswith('a.bmodel')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model_type': 'qwen2_vl'}, 'of family internvl, .* is of qwen2_vl'),
        ({'llm_config': {'num_hidden_layers': 28}}, r'num_hidden_layers: expected 28 .*found 2'),
        ({'llm_config': {'hidden_size': 1536}}, r'hidden_size: expected 1536 .*found 128'),
        ({'llm_config': {'num_hidden_layers': 2}}, 'vocab_size: expected a number'),
    ],
)
def test_a_config_of_another_model_is_refused(files, tmp_path, changes, message):
    config = {'model_type': 'internvl_chat', **changes}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    path = files.weights['model']
    other = ModelFiles('m', 'bm1684x', path.parent, tmp_path, {'model': path})
    with pytest.raises(ModelFileError, match=message):
        open_engine('bm1684x', other)


QWEN = {
    'qwen2_vl': 'qwen2vl_convert_bf16_bm1684x',
    'qwen2_5_vl': 'qwen2_5vl_static_bf16_bm1684x',
    'qwen3_vl': 'qwen3vl_static_bf16_bm1684x',
}


@pytest.mark.parametrize(('nets', 'other'), list(permutations(QWEN, 2)))
def test_a_bmodel_of_a_relatives_family_is_refused(bmodel, nets, other):
    path = bmodel(QWEN[nets])
    texts = FIXTURES[QWEN[other]].config_folder()
    files = ModelFiles('m', 'bm1684x', path.parent, texts, {'model': path})
    with pytest.raises(ModelFileError, match=f'its nets are of family {nets}, .* is of {other}'):
        open_engine('bm1684x', files)


def test_windows_of_another_size_are_refused(bmodel, tmp_path):
    name = QWEN['qwen2_5_vl']
    texts = shutil.copytree(FIXTURES[name].config_folder(), tmp_path / 'texts')
    config = json.loads((texts / 'config.json').read_text())
    config['vision_config']['window_size'] = 56
    (texts / 'config.json').write_text(json.dumps(config))
    files = ModelFiles('m', 'bm1684x', tmp_path, texts, {'model': bmodel(name)})
    with pytest.raises(ModelFileError, match='window_size is 56, expected 112'):
        open_engine('bm1684x', files)


def test_what_a_tower_with_features_for_the_first_layers_takes_is_reported(bmodel):
    name = QWEN['qwen3_vl']
    facts = dict(inspect_model('bm1684x', model_files(FIXTURES[name], bmodel(name))).facts)
    assert facts['family'] == 'qwen3_vl'
    assert facts['nets not used'] == 'none'
    assert facts['vision tower'] == (
        'vit: up to 64 patches (padded), features for 3 layers beside the prompt'
    )


def test_what_a_tower_with_windows_takes_is_reported(bmodel):
    name = QWEN['qwen2_5_vl']
    facts = dict(inspect_model('bm1684x', model_files(FIXTURES[name], bmodel(name))).facts)
    assert facts['family'] == 'qwen2_5_vl'
    assert facts['vision tower'] == (
        'vit: up to 64 patches (padded), mask float32, windows of 112 px'
    )


@pytest.mark.parametrize('content', [None, '{', '[]'])
def test_a_config_that_cannot_be_read_is_named(files, tmp_path, content):
    if content is not None:
        (tmp_path / 'config.json').write_text(content)
    path = files.weights['model']
    other = ModelFiles('m', 'bm1684x', path.parent, tmp_path, {'model': path})
    with pytest.raises(ModelFileError, match=r'config\.json'):
        open_engine('bm1684x', other)


def test_options_that_nobody_knows_are_refused(files):
    with pytest.raises(
        BadRequestError, match='has no option threads; chip bm1684x takes kv_slots'
    ):
        open_engine('bm1684x', files, options={'threads': 2})


def test_a_machine_without_the_library_is_told_where_it_comes_from(files):
    with pytest.raises(DeviceError, match=r'sophon-sail cannot be loaded: .*edge-vlm doctor'):
        open_engine('bm1684x', files)


def test_inspection_needs_neither_library_nor_device(files):
    report = inspect_model('bm1684x', files)
    facts = dict(report.facts)
    assert facts['chip'] == 'BM1684X'
    assert facts['family'] == 'internvl'
    assert facts['context'].startswith('128 tokens')
    nets = [row[0] for row in report.tables[0].rows if row[0]]
    assert 'block_0 and 1 more' in nets
    assert all(len(row) == len(report.tables[0].columns) for row in report.tables[0].rows)


# -- the device tells -----------------------------------------------------------------------------


def tried(name, path, device_ids=()):
    """Open an engine; return what came of it."""
    fixture = FIXTURES[name]
    try:
        engine = open_engine(fixture.chip, model_files(fixture, path), device_ids)
    except (DeviceError, ModelFileError) as error:
        return type(error).__name__, error.message
    engine.close()
    return 'opened', ''


def tried_in_turn(cases):
    """Open one engine after the other; return what came of each."""
    return {what: tried(*case) for what, case in cases.items()}


@pytest.fixture(scope='module')
def on_one_bm1684x(bmodel):
    """What comes of opening on one BM1684X, in one process: a refusal leaves nothing behind."""
    other = 'internvl3_static_bf16_bm1688'
    path = str(bmodel(STATIC))
    cases = {
        'device 1': (STATIC, path, (1,)),
        'device -1': (STATIC, path, (-1,)),
        'two devices': (STATIC, path, (0, 1)),
        'another chip': (other, str(bmodel(other))),
        'good': (STATIC, path),
    }
    return emulator.call('bm1684x', tried_in_turn, cases)


@on_emulator
@pytest.mark.parametrize(
    ('what', 'message'),
    [('device 1', 'no Sophgo device 1: this machine has 1'), ('device -1', 'device -1')],
)
def test_a_device_that_is_not_there_is_refused(on_one_bm1684x, what, message):
    kind, found = on_one_bm1684x[what]
    assert (kind, message in found) == ('SetupError', True), found


@on_emulator
def test_after_refusals_the_device_is_as_good_as_before(on_one_bm1684x):
    assert on_one_bm1684x['good'] == ('opened', '')


@on_emulator
def test_two_devices_for_one_model_are_refused(on_one_bm1684x):
    kind, found = on_one_bm1684x['two devices']
    assert (kind, found) == ('SetupError', 'one device runs one model, 2 were named: [0, 1]')


@on_emulator
def test_a_model_for_another_chip_than_the_device_is_refused(on_one_bm1684x):
    kind, found = on_one_bm1684x['another chip']
    assert (kind, found) == ('SetupError', 'device 0 is a BM1684X, this model runs on BM1688')


@on_emulator
def test_a_model_that_the_free_memory_cannot_hold_is_refused_before_it_is_loaded(bmodel):
    small = {'EDGE_VLM_EMULATOR_MEMORY': str(2**20)}
    kind, found = emulator.call('bm1684x', tried, STATIC, str(bmodel(STATIC)), changes=small)
    assert kind == 'DeviceError'
    assert 'needs 2 MiB of device memory, device 0 has 1 MiB free' in found
    assert 'memory_edit.sh' in found


@on_emulator
def test_the_oldest_release_that_is_supported_loads_without_flags(bmodel):
    old = {'EDGE_VLM_SAIL_RELEASE': '3.9.1'}
    found = emulator.call('bm1684x', tried, STATIC, str(bmodel(STATIC)), changes=old)
    assert found == ('opened', '')


@on_emulator
def test_a_history_build_on_bm1688_needs_a_release_with_shared_scratch_memory(bmodel):
    old, name = {'EDGE_VLM_SAIL_RELEASE': '3.9.1'}, 'internvl3_history_bf16_bm1688'
    kind, found = emulator.call('bm1688', tried, name, str(bmodel(name)), changes=old)
    assert kind == 'SetupError'
    assert 'net block_kv_0' in found
    assert '3.9.4 or later' in found


def declared(name, path):
    """Return the nets as the runtime library declares them."""
    engine = open_fixture(name, path)
    nets = dict(engine._runtime.nets)
    engine.close()
    return nets


@on_emulator
@pytest.mark.parametrize(
    'name',
    [
        'internvl3_history_sample_bf16_bm1684x',
        'internvl3_static_bf16_bm1688',
        'mllama_2024_bf16_bm1684x',
    ],
)
def test_the_file_and_the_runtime_library_tell_the_same_of_every_net(name, bmodel):
    path = bmodel(name)
    assert emulator.call(FIXTURES[name].chip, declared, name, str(path)) == read_bmodel(path).nets


# -- the engine tells -----------------------------------------------------------------------------


def misused(name, path):
    """Ask for what cannot be; return the refusals."""
    bench = Bench(name, path)
    engine, found = bench.engine, {}

    def note(what, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 (whatever it is, the test judges it)
            found[what] = f'{type(error).__name__}: {error}'

    note('no token yet', engine.next_token, GREEDY)
    bench.text()
    held = engine.kv.length
    engine.next_token(SamplingOptions(temperature=0.9, top_k=1))  # greedy: every head can
    note('sampling', engine.next_token, SamplingOptions(temperature=0.5))
    note('too long a cut', engine.kv.truncate, held + 1)
    note('stopped', lambda: engine.prefill(bench._text_part(1), {}, lambda: True))
    note('far position', engine.decode, 5, 128)
    found['held'] = engine.kv.length == held
    engine.kv.truncate(2)
    note('cut', engine.next_token, GREEDY)
    engine.close()
    note('closed', engine.next_token, GREEDY)
    note('closed prefill', engine.plan_prefill, 3)
    return found


@on_emulator
@pytest.mark.slow
def test_misuse_is_refused_and_leaves_the_cache_as_it_was(bmodel):
    found = emulator.call('bm1684x', misused, STATIC, str(bmodel(STATIC)))
    assert found['held']
    assert 'no token was appended' in found['no token yet']
    assert found['sampling'].startswith('BadRequestError: this bmodel chooses the best token')
    assert found['too long a cut'].startswith('ValueError')
    assert found['stopped'].startswith('CancelledError')
    assert found['far position'].startswith('PromptTooLongError: position 128 is past the last')
    assert 'no token was appended' in found['cut']
    assert found['closed'].startswith(NotReadyError.__name__)
    assert found['closed prefill'].startswith(NotReadyError.__name__)
