"""The one module that knows axengine: its defects stay out, its failures say who can act."""

import gc
import sys
import types
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from edge_vlm_ros.core import DeviceError, ModelFileError
from edge_vlm_ros.engines.axera import give_back, runtime
from edge_vlm_ros.engines.axera.runtime import Device, Session, TensorInfo, open_device

pytestmark = pytest.mark.axera


@pytest.fixture
def session(stand_in, set_files):
    stand_in()
    opened = Session(open_device('ax650'), set_files('tiny').weights['layers.0'])
    yield opened
    opened.close()


def ledger():
    from axengine._python_library import LEDGER

    return LEDGER


def decode_feeds(session, seed=0):
    random = np.random.default_rng(seed)

    def bits(shape):
        return random.normal(size=shape).astype(ml_dtypes.bfloat16).view(np.uint16)

    tensors = {tensor.name: tensor.shape for tensor in session.groups[0].inputs}
    return {
        name: np.zeros(shape, np.uint32) if name == 'indices' else bits(shape)
        for name, shape in tensors.items()
    }


def test_groups_are_found_without_being_counted(session):
    assert len(session.groups) == 10
    assert session.groups[0].inputs[0] == TensorInfo('K_cache', (1, 319, 32), 'bfloat16')
    assert session.groups[0].inputs[0].nbytes == 319 * 32 * 2


def test_bfloat16_goes_in_and_comes_out_as_bits(session):
    results = session.run(0, decode_feeds(session))
    assert [array.dtype for array in results] == [np.uint16] * 3
    assert [array.shape for array in results] == [t.shape for t in session.groups[0].outputs]


def test_arrays_in_column_order_give_what_those_in_row_order_give(session):
    feeds = decode_feeds(session)
    expected = session.run(0, feeds)
    turned = {name: np.asfortranarray(array) for name, array in feeds.items()}
    assert not turned['K_cache'].flags.c_contiguous
    for found, right in zip(session.run(0, turned), expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_results_outlive_the_next_run(session):
    first = session.run(0, decode_feeds(session))[2]
    kept = first.copy()
    session.run(0, decode_feeds(session, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_inputs_of_a_group_may_have_names_of_their_own(stand_in, set_files):
    stand_in()
    session = Session(open_device('ax650'), set_files('tiny-suffixed').weights['layers.0'])
    group = session.groups[2]
    assert group.inputs[0].name == 'K_cache_2'
    feeds = {
        tensor.name: np.zeros(tensor.shape, np.uint32 if 'indices' in tensor.name else np.uint16)
        for tensor in group.inputs
    }
    assert len(session.run(2, feeds)) == 3
    session.close()


def test_a_wrong_shape_never_reaches_the_chip(session):
    feeds = decode_feeds(session)
    feeds['mask'] = feeds['mask'][..., 1:]
    with pytest.raises(AssertionError, match='mask'):
        session.run(0, feeds)


def test_a_failing_run_names_the_file(stand_in, set_files):
    stand_in(runs=0)
    session = Session(open_device('ax650'), set_files('tiny').weights['layers.0'])
    with pytest.raises(DeviceError, match=r'l0_together.axmodel: the chip failed: Failed to run'):
        session.run(0, decode_feeds(session))
    session.close()


def test_closing_gives_all_memory_back_and_can_be_done_twice(stand_in, set_files):
    stand_in()
    device = open_device('ax650')
    for _ in range(3):
        session = Session(device, set_files('tiny').weights['layers.0'])
        assert ledger().held_bytes > 0
        session.close()
        session.close()
        assert (ledger().held_bytes, len(ledger().handles)) == (0, 0)
    del session
    gc.collect()  # __del__ of the package's session: what is freed must not be freed again


def test_a_session_that_cannot_be_opened_leaves_nothing_on_the_chip(stand_in, set_files):
    stand_in(cmm_bytes=25_000)  # room for some of the buffers
    with pytest.raises(DeviceError, match='the chip has no memory left for it'):
        Session(open_device('ax650'), set_files('tiny').weights['layers.0'])
    gc.collect()
    assert (ledger().held_bytes, len(ledger().handles)) == (0, 0)


def test_memory_that_cannot_be_given_back_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(give_back, '_is_leak_told', False)
    for _ in range(2):
        give_back.free(types.SimpleNamespace(_sess=object()))
    assert [record.levelname for record in caplog.records] == ['WARNING']
    assert 'gives no chip memory back' in caplog.text


def test_what_the_package_prints_goes_to_the_log(stand_in, set_files, capsys, caplog):
    stand_in()
    for name in [name for name in sys.modules if name.startswith('axengine')]:
        del sys.modules[name]  # so that it is imported, and prints, now
    capsys.readouterr()
    with caplog.at_level('DEBUG'):
        Session(open_device('ax650'), set_files('tiny').weights['layers.0']).close()
    assert capsys.readouterr().out == ''
    assert 'Available providers' in caplog.text
    assert 'Chip type' in caplog.text


def test_without_the_package_it_is_said_where_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'axengine', None)
    with pytest.raises(DeviceError, match=r'not installed.*0\.1\.3.*github.com/AXERA-TECH'):
        open_device('ax650')


def test_without_a_library_it_is_said_what_to_add(stand_in, monkeypatch):
    monkeypatch.setenv('EDGE_VLM_AX_PROVIDERS', '')
    with pytest.raises(ImportError):
        stand_in()
    with pytest.raises(DeviceError, match=r'No providers found.*libax_engine.*ldconfig'):
        open_device('ax650')


@pytest.mark.parametrize(('chip', 'sdk'), [('ax650', '2.18'), ('ax630c', '3.12')])
def test_an_sdk_without_bfloat16_is_told_from_a_bad_file(stand_in, set_files, chip, sdk):
    stand_in(bf16=0, chip=chip)
    kind = 'tiny' if chip == 'ax650' else 'tiny-ax630c'
    with pytest.raises(DeviceError, match=rf'l0_together.axmodel: .*{chip} needs SDK {sdk}'):
        Session(open_device(chip), set_files(kind, chip).weights['layers.0'])


def test_an_old_package_is_refused(stand_in, monkeypatch):
    stand_in()
    monkeypatch.setattr(runtime.importlib.metadata, 'version', lambda name: '0.1.2')
    with pytest.raises(DeviceError, match=r'axengine 0\.1\.2 is too old: install 0\.1\.3'):
        open_device('ax650')


def test_a_package_without_shape_groups_is_refused(stand_in, monkeypatch):
    package = stand_in()
    monkeypatch.setattr(package.InferenceSession, 'run', lambda self, names, feed: [])
    with pytest.raises(DeviceError, match='without shape groups is too old'):
        open_device('ax650')


def test_another_board_than_asked_for_is_refused(stand_in, set_files):
    stand_in(chip='ax630c')
    path = set_files('tiny-ax630c', 'ax630c').weights['layers.0']
    with pytest.raises(DeviceError, match='ax650 was asked for, the board has an ax630c'):
        Session(open_device('ax650'), path)


def test_a_file_for_another_chip_is_refused(stand_in, set_files):
    stand_in()
    path = set_files('tiny-ax630c', 'ax630c').weights['layers.0']
    with pytest.raises(ModelFileError, match='a file for another chip'):
        Session(open_device('ax650'), path)


def test_a_full_chip_is_no_damaged_file(stand_in, set_files, tmp_path):
    stand_in()
    path, info = tmp_path / 'l9.axmodel', tmp_path / 'mem_cmm_info'
    path.write_bytes(bytes(100_000))  # the driver refuses it
    device = replace(open_device('ax650'), cmm_info=info)
    for free_kb, wanted in ((200, ModelFileError), (90, DeviceError)):
        info.write_text(f' total size=1024KB(1MB),used=1KB(0MB + 1KB),remain={free_kb}KB(0MB)')
        with pytest.raises(wanted, match=r'l9\.axmodel'):
            Session(device, path)
    info.unlink()
    with pytest.raises(ModelFileError):
        Session(device, path)
    session = Session(device, set_files('tiny').weights['layers.0'])
    with pytest.raises(DeviceError, match=r'memory full, or the NPU is busy.*mem_cmm_info'):
        Session(device, path)
    session.close()


def test_a_card_whose_npu_another_program_holds_is_told(stand_in, set_files, monkeypatch):
    package = stand_in(providers='axcl', cards=1)

    def refuse(*_, **__):
        raise AttributeError("'Lib' object has no attribute 'axclrtEngineVNpuKind'")

    monkeypatch.setattr(package, 'InferenceSession', refuse)
    device = Device('ax650', 'AXCLRTExecutionProvider', 0, package)
    with pytest.raises(DeviceError, match=r"card 0: another program has initialised the card's"):
        Session(device, set_files('tiny').weights['layers.0'])


def test_a_file_that_is_not_there_is_named(stand_in, tmp_path):
    stand_in()
    with pytest.raises(ModelFileError, match=r'absent\.axmodel: no such file'):
        Session(open_device('ax650'), tmp_path / 'absent.axmodel')


def test_a_card_is_chosen_by_its_number(stand_in, set_files):
    stand_in(providers='axcl', cards=2)
    session = Session(open_device('ax650', (1,)), set_files('tiny').weights['layers.0'])
    assert session._vendor._sess._device_index == 1
    assert len(session.run(0, decode_feeds(session))) == 3
    session.close()


def test_a_card_that_is_not_there_is_named(stand_in, set_files):
    """The package would raise once more when what it could not construct is collected."""
    stand_in(providers='axcl', cards=1)
    with pytest.raises(DeviceError, match=r'card 3: Device index 3 is out of range, total 1'):
        Session(open_device('ax650', (3,)), set_files('tiny').weights['layers.0'])
    gc.collect()


def test_the_chip_on_the_board_is_one_device(stand_in):
    stand_in()
    with pytest.raises(DeviceError, match='has the one device 0, not 1'):
        open_device('ax650', (1,))


def test_one_model_runs_on_one_card(stand_in):
    stand_in(providers='axcl', cards=2)
    with pytest.raises(DeviceError, match=r'one device runs one model, not \[0, 1\]'):
        open_device('ax650', (0, 1))


def test_a_number_above_zero_means_a_card_where_both_are_found(stand_in):
    stand_in(providers='engine,axcl', cards=2)
    assert open_device('ax650', (1,)).is_card
    assert not open_device('ax650').is_card
