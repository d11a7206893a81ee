"""What is broken is named: each way in which an installation was seen to fail, really so here.

Packages that are missing or of another Python, an NPU that another program has shared out, both
libraries and no card, wheels of one number that can do different things, half-made sessions.
"""

import gc
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from edge_vlm_ros.core import BadRequestError, DeviceError, ModelFileError, SetupError
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.axera import runtime
from edge_vlm_ros.engines.axera.providers import ON_CARD, ON_CHIP, choose_provider, has_card
from edge_vlm_ros.engines.axera.refused import NoCardError
from edge_vlm_ros.engines.axera.runtime import Session, open_device
from edge_vlm_ros.serving import ModelSpec
from edge_vlm_ros.serving.loading import load_model

pytestmark = pytest.mark.axera

OLD_ORDER = 'axcl,engine'
"""Of wheels up to 0.1.3.rc2: the card first, whether or not there is one."""


@pytest.fixture
def layer(set_files):
    return set_files('tiny').weights['layers.0']


@pytest.fixture
def unraisable(monkeypatch):
    """Collect what Python would print of errors in `__del__`."""
    heard = []
    monkeypatch.setattr(sys, 'unraisablehook', heard.append)
    yield heard
    gc.collect()


def refusal(device, layer):
    """Open a file that cannot be; return the error, its frames let go."""
    with pytest.raises(DeviceError) as caught:
        Session(device, layer)
    return caught.value


# --- packages that axengine needs, imported with the first session -------------------------------


@pytest.mark.parametrize(('module', 'package'), [('cffi', 'cffi'), ('ml_dtypes', 'ml-dtypes')])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    stand_in, layer, monkeypatch, module, package
):
    stand_in(needs='cffi')
    device = open_device('ax650')
    monkeypatch.setitem(sys.modules, 'cffi', sys)  # the stand-in does not use it
    monkeypatch.setitem(sys.modules, module, None)
    error = refusal(device, layer)
    assert isinstance(error, SetupError), 'to try again would end likewise'
    assert f'needs the Python package {package}, which is not there' in error.message
    assert f'{sys.executable} -m pip install --force-reinstall {package}' in error.message


@pytest.mark.parametrize(
    'case',
    [
        ('cffi', 'cffi', 'import _cffi_backend_of_another_python'),
        ('ml_dtypes', 'ml-dtypes', 'raise ImportError("numpy.core.multiarray failed to import")'),
    ],
    ids=lambda case: case[0],
)
def test_a_package_of_another_python_is_named(stand_in, layer, monkeypatch, tmp_path, case):
    module, package, code = case
    (tmp_path / module).mkdir()
    (tmp_path / module / '__init__.py').write_text(code)
    stand_in(needs=module)
    device = open_device('ax650')
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    error = refusal(device, layer)
    assert isinstance(error, SetupError)
    wanted = f'{package}, which is damaged or was made for another Python; this is Python 3.'
    assert wanted in error.message


# --- an NPU that another program has shared out --------------------------------------------------


@pytest.mark.parametrize('mode', ['1 ENABLED', '2 BIG_LITTLE', '3 LITTLE_BIG'])
@pytest.mark.parametrize('library', ['python', 'stub'])
def test_a_virtual_mode_is_named_and_may_end(request, stand_in, layer, mode, library):
    number, name = mode.split()
    if library == 'stub':
        request.getfixturevalue('on_stub')
        request.getfixturevalue('monkeypatch').setenv('AX_STUB_VNPU', number)
    stand_in(vnpu=number)
    error = refusal(open_device('ax650'), layer)
    assert not isinstance(error, (SetupError, ModelFileError)), 'it is tried again'
    assert f'in the virtual mode {name}, which another program has set' in error.message
    assert 'fuser' in error.message


def test_once_the_other_program_has_ended_the_same_file_loads(stand_in, layer, monkeypatch):
    stand_in(vnpu=1)
    device = open_device('ax650')
    refusal(device, layer)
    monkeypatch.setenv('EDGE_VLM_AX_VNPU', '0')
    Session(device, layer).close()


# --- both libraries, one chip --------------------------------------------------------------------


@pytest.mark.parametrize(
    'case',
    [
        ('auto', (ON_CARD, ON_CHIP), 0, '', ON_CHIP),
        ('auto', (ON_CARD, ON_CHIP), 0, 'card', ON_CARD),
        ('auto', (ON_CHIP, ON_CARD), 0, 'card', ON_CARD),
        ('auto', (ON_CHIP, ON_CARD), 1, '', ON_CARD),
        ('auto', (ON_CARD,), 0, '', ON_CARD),
        ('auto', (ON_CHIP,), 0, 'card', ON_CHIP),
        ('chip', (ON_CARD, ON_CHIP), 0, 'card', ON_CHIP),
        ('card', (ON_CHIP, ON_CARD), 0, '', ON_CARD),
    ],
    ids=str,
)
def test_the_provider_is_chosen_by_what_is_there(tmp_path, case):
    wanted, available, index, there, chosen = case
    if there:
        (tmp_path / 'dev').mkdir()
        (tmp_path / 'dev/axcl_host').touch()
    assert choose_provider(wanted, available, index, tmp_path) == chosen


@pytest.mark.parametrize(('wanted', 'available'), [('card', (ON_CHIP,)), ('chip', (ON_CARD,))])
def test_a_provider_without_its_library_is_refused(tmp_path, wanted, available):
    with pytest.raises(SetupError, match=rf'provider {wanted}: axengine finds no libax'):
        choose_provider(wanted, available, 0, tmp_path)


@pytest.mark.parametrize(('vendor', 'is_there'), [('0x1f4b', True), ('0x8086', False)])
def test_a_driver_without_a_card_on_the_bus_is_no_card(tmp_path, vendor, is_there):
    for place, text in (
        ('dev/axcl_host', ''),
        ('sys/bus/pci/devices/0000:01:00.0/vendor', f'{vendor}\n'),
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert has_card(tmp_path) is is_there


def test_an_older_wheel_on_a_board_without_a_card_takes_the_chip(stand_in, set_files):
    stand_in(providers=OLD_ORDER, cards=0)
    engine = open_engine('ax650', set_files('tiny'), options={'backend': 'portable'})
    engine.close()


def test_a_card_that_only_seemed_to_be_there_gives_way_to_the_chip(
    stand_in, layer, monkeypatch, caplog, unraisable
):
    stand_in(providers=OLD_ORDER, cards=0)
    monkeypatch.setattr(runtime, 'choose_provider', lambda *_: ON_CARD)
    device = open_device('ax650', trial=layer)
    assert (device.provider, device.index) == (ON_CHIP, None)
    assert caplog.text.count('the chip of this board is taken') == 1
    Session(device, layer).close()
    gc.collect()
    assert not unraisable


def test_a_card_that_was_asked_for_does_not_give_way(stand_in, set_files):
    stand_in(providers=OLD_ORDER, cards=0)
    with pytest.raises(NoCardError, match=r'the driver lists no card .*lspci -d 1f4b:'):
        open_engine('ax650', set_files('tiny'), options={'provider': 'card'})


def test_an_unknown_provider_is_a_bad_request(stand_in, set_files):
    stand_in()
    with pytest.raises(BadRequestError, match="provider is auto, chip or card, not 'axcl'"):
        open_engine('ax650', set_files('tiny'), options={'provider': 'axcl'})


# --- wheels that are all 0.1.3 -------------------------------------------------------------------


def test_results_in_the_packages_memory_are_copied(stand_in, layer, monkeypatch):
    """As 0.1.3.rc0 hands them out: the next run writes over them."""
    package = stand_in()
    session = Session(open_device('ax650'), layer)
    feeds = {
        tensor.name: np.zeros(tensor.shape, np.uint32 if tensor.name == 'indices' else np.uint16)
        for tensor in session.groups[0].inputs
    }
    right = session.run(0, feeds)
    whole = package.InferenceSession.run
    buffers = []

    def run(*args, **kwargs):
        results = whole(*args, **kwargs)
        buffers.extend(bytearray(array.tobytes()) for array in results)
        return [
            np.frombuffer(buffer, array.dtype).reshape(array.shape)
            for buffer, array in zip(buffers, results, strict=True)
        ]

    monkeypatch.setattr(package.InferenceSession, 'run', run)
    found = session.run(0, feeds)
    for buffer in buffers:
        buffer[:] = b'\xff' * len(buffer)
    for array, wanted in zip(found, right, strict=True):
        np.testing.assert_array_equal(array, wanted)
    session.close()


# --- a table of another model --------------------------------------------------------------------


@pytest.fixture
def set_with_a_table(write_set, tmp_path):
    """Copy the tiny set, its table changed: `make(rows, suffix)` gives the folder."""

    def make(rows, suffix):
        folder = Path(shutil.copytree(write_set('tiny'), tmp_path / 'set'))
        (old,) = folder.glob('model.embed_tokens.weight*')
        table = np.load(old).astype(np.float32)[:rows]
        old.unlink()
        if suffix == '.npy':
            np.save(folder / 'model.embed_tokens.weight.npy', table)
        else:
            raw = table.astype(ml_dtypes.bfloat16).tobytes()
            (folder / 'model.embed_tokens.weight.bfloat16.bin').write_bytes(raw)
        return folder

    return make


@pytest.mark.parametrize('suffix', ['.npy', '.bin'])
def test_a_table_shorter_than_the_tokenizer_is_refused_before_any_layer(
    stand_in, set_with_a_table, suffix
):
    stand_in()
    _forget_the_package()
    spec = ModelSpec('ax650', str(set_with_a_table(200, suffix)))
    loaded = []
    with pytest.raises(ModelFileError, match=r'table has 200 rows, the tokenizer .* up to 261'):
        load_model(spec, lambda *parts: loaded.append(parts))
    assert not loaded
    assert 'axengine' not in sys.modules, 'no chip was opened'


@pytest.mark.parametrize('suffix', ['.npy', '.bin'])
def test_a_table_that_has_a_row_for_each_id_is_taken(stand_in, set_with_a_table, suffix):
    stand_in()
    spec = ModelSpec('ax650', str(set_with_a_table(262, suffix)))
    load_model(spec).close()


def _forget_the_package():
    for name in [name for name in sys.modules if name.partition('.')[0] == 'axengine']:
        del sys.modules[name]


# --- half-made sessions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    'environment',
    [
        {'vnpu': 1},
        {'cmm_bytes': 25_000},
        {'bf16': 0},
        {'providers': 'axcl', 'cards': 0},
        {'providers': 'axcl', 'cards': 1, 'bf16': 0},
        {'providers': 'axcl', 'cards': 1, 'cmm_bytes': 25_000},
    ],
    ids=str,
)
def test_a_half_made_session_ends_without_a_word_and_leaves_nothing(
    stand_in, layer, unraisable, environment
):
    stand_in(**environment)
    refusal(open_device('ax650'), layer)
    gc.collect()
    assert not unraisable
    from axengine._python_library import LEDGER

    assert (LEDGER.held_bytes, len(LEDGER.handles)) == (0, 0)
