"""What the doctor reads of a chip: driver, SDK, memory, on copies of boards' files.

The texts are as the vendors' guides and tools print them; the modules under test say which.
"""

from __future__ import annotations

import json
import os
import stat
import sys

import pytest
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.cli import axera_probes, sophgo_probes
from edge_vlm_ros.cli.findings import State
from edge_vlm_ros.cli.machine import Machine, is_older, version_in
from edge_vlm_ros.cli.memory_fit import check_models
from edge_vlm_ros.cli.probes import find_devices, find_vendor_module
from edge_vlm_ros.models import load_catalogue

ALL = load_catalogue()
HEAP = """\
Summary:
[{}] {} heap size:{} bytes, used:{} bytes        usage rate:4%, memory usage peak 144646144 bytes
"""
CMM = (
    ' total size=10485760KB(10240MB),used=283228KB(276MB + 604KB),'
    'remain=10202532KB(9963MB + 420KB),partition_number=1,block_number=41\n'
)
AXCL_SMI = """\
+------------------------------------------------------------------------------------------------+
| AXCL-SMI  V3.6.2_20250603154858                                  Driver  V3.6.2_20250603154858 |
+-----------------------------------------+--------------+---------------------------------------+
| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |
| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |
|=========================================+==============+=======================================|
|    0  AX650N                     V3.6.2 | 0001:01:00.0 |                148 MiB /      945 MiB |
|   --   55C                      -- / -- | 0%        0% |                 18 MiB /     7040 MiB |
|    1  AX650N                     V2.17.0 | 0002:01:00.0 |               148 MiB /      945 MiB |
|   --   37C                      -- / -- | 1%        0% |               2335 MiB /     7040 MiB |
+-----------------------------------------+--------------+---------------------------------------+
"""


class Board:
    """A folder with a board's files."""

    def __init__(self, root):
        self.root = root
        self.machine = Machine(root)

    def put(self, path, text=''):
        place = self.root / path.lstrip('/')
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def put_heaps(self, kind='bm', **sizes_mb):
        for number, (name, size) in enumerate(sizes_mb.items()):
            text = HEAP.format(number, name, size << 20, 0)
            self.put(f'/sys/kernel/debug/ion/{kind}_{name}_heap_dump/summary', text)

    def be_ax650(self, version='Ax_Version V3.6.2_20250731140456', chip='AX650C_CHIP'):
        self.put('/dev/ax_sys')
        self.put('/proc/ax_proc/version', f'{version}\n')
        self.put('/proc/ax_proc/chip_type', f'{chip}\n')
        self.put('/proc/ax_proc/mem_cmm_info', CMM)

    def be_se7(self, **heaps):
        self.put('/dev/bm-tpu0')
        self.put('/opt/sophon/libsophon-0.5.1/lib')
        (self.root / 'opt/sophon/libsophon-current').symlink_to('/opt/sophon/libsophon-0.5.1')
        self.put_heaps(**(heaps or {'npu': 3950, 'vpu': 2048, 'vpp': 3072}))


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / 'board')


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Put a tool that prints a text on the path."""

    def write(name, text):
        folder = tmp_path / 'bin'
        folder.mkdir(exist_ok=True)
        (folder / f'{name}.txt').write_text(text)
        script = folder / name
        script.write_text(f'#!/bin/sh\ncat {folder}/{name}.txt\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')

    return write


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Put a vendor's module on the path, here and in child processes."""
    written = set()

    def write(name, text):
        written.add(name.partition('.')[0])
        folder = tmp_path / 'site'
        path = folder / f'{name.replace(".", "/")}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        monkeypatch.setenv('PYTHONPATH', str(folder))
        monkeypatch.syspath_prepend(folder)

    yield write
    # Looking for a module imports the package that it is in.
    for name in [name for name in sys.modules if name.partition('.')[0] in written]:
        del sys.modules[name]


def findings(found):
    return {finding.name: finding for finding in found}


# --- what all chips have in common -------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'version'),
    [
        ('Ax_Version V3.6.2_20250731140456', (3, 6, 2)),
        ('Ax_Version V1.45.0_P39_20240830020829', (1, 45, 0)),
        ('0.1.3.rc3', (0, 1, 3)),
        ('libsophon-0.5.1', (0, 5, 1)),
        ('none', ()),
    ],
)
def test_versions_are_read_out_of_texts(text, version):
    assert version_in(text) == version


def test_an_unknown_version_is_not_old():
    assert is_older((2, 17), (2, 18))
    assert not is_older((2, 18, 0), (2, 18))
    assert not is_older((), (2, 18))


def test_a_module_that_kills_its_process_is_reported(module):
    module('rude_vendor', 'import os; os.abort()')
    found = find_vendor_module('A chip', 'rude_vendor', 'rude', 'get it')
    assert found.state is State.WARNING
    assert 'signal 6' in found.found


@pytest.mark.parametrize(
    ('version', 'state'), [('3.8.0', State.WARNING), ('3.9.1', State.OK), ('3.10.7', State.OK)]
)
def test_a_module_that_is_too_old_is_a_warning(module, version, state):
    module('some_vendor', f'print("[INFO] hello")\n__version__ = {version!r}\n')
    found = find_vendor_module('A chip', 'some_vendor', 'x', 'get it', (3, 9, 1))
    assert (found.state, found.found) == (state, version)
    assert ('3.9.1 or later: get it' in found.remedy) == (state is State.WARNING)


def test_an_absent_chip_takes_nothing_else_away(board):
    module = find_vendor_module('A chip', 'no.such.vendor', 'x', 'get it')
    device = find_devices('A chip', board.machine, ('/dev/no-such*',))
    assert (module.state, module.remedy) == (State.ABSENT, 'get it')
    assert device.state is State.ABSENT
    assert '/dev/no-such*' in device.found


def test_a_device_node_that_is_there_is_named():
    device = find_devices('A chip', Machine(), ('/dev/null',))
    assert (device.state, device.found) == (State.OK, '/dev/null')


def test_a_machine_without_either_chip_gets_two_lines_for_each(board):
    for find, topic in ((sophgo_probes.find_sophgo, 'Sophgo'), (axera_probes.find_axera, 'Axera')):
        found = list(find(board.machine))
        assert [finding.state for finding in found] == [State.ABSENT] * 2
        assert all(finding.topic.startswith(topic) for finding in found)


# --- Sophgo ------------------------------------------------------------------------------------


def test_heaps_are_read_in_either_driver_form(board):
    board.put_heaps('cvi', npu=768, vpp=1280)
    assert sophgo_probes.sophgo_memory(board.machine).heaps_mb == {'npu': 768, 'vpp': 1280}
    # As sophon-demo's FAQ prints it: the line is broken after the used bytes.
    faq = '[1] vpp heap size:4294967296 bytes, used:144646144 bytes\nusage rate:4%, memory usage'
    assert sophgo_probes.parse_heaps(faq) == {'vpp': 4096}


def test_a_soc_says_its_library_and_its_heaps(board):
    board.be_se7()
    found = findings(sophgo_probes.find_sophgo(board.machine))
    assert found['device'].found == '/dev/bm-tpu0'
    assert found['libsophon'].state is State.OK
    assert found['libsophon'].found.startswith('libsophon-0.5.1 ')
    assert found['memory'].found == 'npu 3950, vpp 3072, vpu 2048 MiB, 9070 MiB in all'


@pytest.mark.parametrize(('version', 'state'), [('0.5.0', State.WARNING), ('0.5.1', State.OK)])
def test_a_card_says_its_drivers_version(board, version, state):
    board.put('/dev/bm-sophon0')
    text = f'release version:{version}   release date: 20240304-175610\n'
    board.put('/proc/bmsophon/driver_version', text)
    found = findings(sophgo_probes.find_sophgo(board.machine))
    assert found['libsophon'].state is state
    assert found['libsophon'].found == f'{version} (/proc/bmsophon/driver_version)'


def test_a_card_is_asked_for_its_memory_through_sail(board, module):
    board.put('/dev/bm-sophon0')
    module('sophon.sail', '__version__ = "3.9.1"\nget_dev_stat = lambda device: [14751, 0, 0]\n')
    found = findings(sophgo_probes.find_sophgo(board.machine))
    assert (found['memory'].state, found['memory'].found) == (State.OK, '14751 MiB')


def test_memory_that_must_not_be_read_is_a_warning(board):
    board.put('/dev/bm-tpu0')
    found = findings(sophgo_probes.find_sophgo(board.machine))
    assert found['memory'].state is State.WARNING
    assert 'sudo' in found['memory'].remedy
    assert found['libsophon'].state is State.WARNING


def test_the_memory_command_names_the_boards_own_boot_image(board):
    command = ALL.find('bm1684x', 'qwen2-vl-7b').soc_memory.command
    remedy = sophgo_probes.memory_remedy(command, board.machine)
    assert './memory_edit.sh -c -npu 7615 -vpu 2048 -vpp 2048' in remedy
    assert 'sudo cp emmcboot.itb /boot/emmcboot.itb && sync && sudo reboot' in remedy
    board.put('/proc/cpuinfo', 'model name\t: bm1688\n')
    assert '/boot/boot.itb' in sophgo_probes.memory_remedy(command, board.machine)


# --- Axera -------------------------------------------------------------------------------------


def test_a_board_says_its_sdk_and_its_memory(board):
    board.be_ax650()
    found = findings(axera_probes.find_axera(board.machine))
    assert found['SDK'].state is State.OK
    assert found['SDK'].found == 'V3.6.2_20250731140456 (AX650C_CHIP)'
    assert found['CMM on chip'].found == '10240 MiB, 9963 MiB free'


@pytest.mark.parametrize(
    ('version', 'chip', 'state'),
    [
        ('Ax_Version V1.45.0_P39', 'AX650C_CHIP', State.WARNING),
        ('Ax_Version V2.18.0', 'AX650N_CHIP', State.OK),
        ('Ax_Version V3.0.0', 'AX630C_CHIP', State.WARNING),
        ('Ax_Version V3.12.0', 'AX630C_CHIP', State.OK),
        ('', 'AX630C_CHIP', State.WARNING),
    ],
)
def test_an_sdk_without_bfloat16_is_a_warning(board, version, chip, state):
    board.be_ax650(version, chip)
    assert axera_probes.find_sdk(board.machine).state is state


@pytest.mark.parametrize(
    ('text', 'chip'),
    [('AX650C_CHIP', 'ax650'), ('AX630C_CHIP', 'ax630c'), ('AX620V200_CHIP', 'ax630c'), ('', '')],
)
def test_the_chip_is_known_by_its_type(board, text, chip):
    board.put('/proc/ax_proc/chip_type', text)
    assert axera_probes.chip_of(board.machine) == chip


def test_cards_are_listed_with_firmware_and_memory(board, tool):
    board.put('/dev/axcl_host')
    tool('axcl-smi', AXCL_SMI)
    found = findings(axera_probes.find_axera(board.machine))
    assert found['card 0'].found == 'AX650N, firmware V3.6.2, driver V3.6.2_20250603154858'
    assert (found['card 0'].state, found['card 1'].state) == (State.OK, State.WARNING)
    assert found['CMM card 0'].found == '7040 MiB, 7022 MiB free'
    assert found['CMM card 1'].found == '7040 MiB, 4705 MiB free'
    assert axera_probes.chip_of(board.machine) == 'ax650'


def test_a_card_that_the_driver_does_not_list_is_a_warning(board, tool):
    board.put('/dev/axcl_host')
    tool('axcl-smi', 'no device\n')
    found = findings(axera_probes.find_axera(board.machine))
    assert (found['cards'].state, found['CMM'].state) == (State.WARNING, State.WARNING)


def test_a_library_that_the_loader_does_not_find_comes_with_the_line_that_helps(board):
    board.put('/soc/lib/libax_engine.so')
    found = axera_probes.find_library(board.machine, 'ax_engine')
    assert found.state is State.WARNING
    assert 'echo /soc/lib | sudo tee /etc/ld.so.conf.d/axera.conf' in found.remedy
    assert axera_probes.find_library(board.machine, 'c').state is State.OK


# --- models and memory -------------------------------------------------------------------------


def put_set(folder, entry, layer_bytes=1):
    folder.mkdir(parents=True)
    for layer in range(entry.layers):
        name = entry.files['layers'].path.format(layer=layer)
        (folder / name).write_bytes(bytes(layer_bytes))
    for name in ('qwen2_post.axmodel', 'model.embed_tokens.weight.npy', 'a_vit.axmodel'):
        (folder / name).touch()
    for name in ('config.json', 'tokenizer.json'):
        (folder / name).write_text('{}')


@pytest.fixture
def room(board, tmp_path, monkeypatch):
    """Compare the models in tmp_path/models with the board's memory; give findings by name."""
    monkeypatch.delenv('EDGE_VLM_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    return lambda: findings(check_models(board.machine, (tmp_path / 'models',)))


def test_a_set_that_fits_is_said_to_fit(room, board, tmp_path):
    put_set(tmp_path / 'models' / 'internvl3-2b', ALL.find('ax650', 'internvl3-2b'))
    board.be_ax650()
    assert room()['internvl3-2b (ax650)'].found == 'takes 4026 MiB of CMM of 9963 MiB free'


@pytest.mark.parametrize(
    ('memory', 'says'),
    [
        ((3072, 3000), 'takes 4026 MiB of CMM, there are 3072 MiB'),
        ((7040, 2000), 'takes 4026 MiB of CMM, 2000 MiB are free'),
    ],
)
def test_a_set_that_does_not_fit_is_a_warning(room, board, tmp_path, memory, says):
    total_mb, free_mb = memory
    put_set(tmp_path / 'models' / 'internvl3-2b', ALL.find('ax650', 'internvl3-2b'))
    board.be_ax650()
    used = (total_mb - free_mb) << 10
    text = f' total size={total_mb << 10}KB(x),used={used}KB(x),remain={free_mb << 10}KB(x)\n'
    board.put('/proc/ax_proc/mem_cmm_info', text)
    found = room()['internvl3-2b (ax650)']
    assert (found.state, found.found) == (State.WARNING, says)
    assert found.remedy


@pytest.fixture
def smolvlm(tmp_path):
    """Put a model of the CPU where it belongs, its weights beside its graphs."""
    from support.tiny_smolvlm.make import make_tiny_smolvlm
    from support.tiny_smolvlm.variants import put_weights_beside

    folder = make_tiny_smolvlm(tmp_path / 'models' / 'cpu' / 'smolvlm-256m')
    beside = put_weights_beside(folder)
    for path in sorted((folder / 'onnx').glob('*.onnx')):
        path.rename(path.with_name(f'{path.stem}_int8.onnx'))
    return beside


def test_a_model_of_the_cpu_is_compared_with_the_hosts_memory(room, board, smolvlm):
    board.put('/proc/meminfo', 'MemTotal:        8000000 kB\n')
    assert room()['smolvlm-256m (cpu)'].found == 'takes 600 of 7812 MiB'
    board.put('/proc/meminfo', 'MemTotal:         500000 kB\n')
    found = room()['smolvlm-256m (cpu)']
    assert (found.state, found.found) == (State.WARNING, 'takes 600 MiB, there are 488 MiB')


def test_weights_that_are_missing_beside_a_graph_are_named_with_what_fetches_them(room, smolvlm):
    smolvlm[2].unlink()
    found = room()['smolvlm-256m (cpu)']
    assert found.state is State.WARNING
    assert 'decoder_model_merged.onnx_data' in found.found
    assert found.remedy == 'edge-vlm models fetch smolvlm-256m --chip cpu'


def test_a_model_for_a_newer_sdk_is_a_warning(room, board, tmp_path, own_model):
    put_set(tmp_path / 'models' / 'internvl3-2b', ALL.find('ax650', 'internvl3-2b'))
    board.be_ax650('Ax_Version V2.17.1')
    found = room()['internvl3-2b (ax650)']
    assert found.state is State.WARNING
    assert found.found == 'is made for AX650 2.18 or later, this is 2.17.1'
    own_model(sdk_version='0.6')
    board.be_se7()
    assert room()['mine (bm1684x)'].found.endswith('or later, this is 0.5.1')


def test_a_host_with_too_little_memory_is_a_warning(room, board, tmp_path):
    put_set(tmp_path / 'models' / 'internvl3-2b', ALL.find('ax650', 'internvl3-2b'))
    board.be_ax650()
    board.put('/proc/meminfo', 'MemTotal:        2014580 kB\nMemFree:         1000000 kB\n')
    found = room()['internvl3-2b (ax650)']
    assert found.state is State.WARNING
    assert 'asks for 4096 MiB of host memory, there are 1967 MiB' in found.found


def test_a_set_of_another_chip_is_not_compared(room, board, tmp_path):
    put_set(tmp_path / 'models' / 'internvl3-2b', ALL.find('ax650', 'internvl3-2b'))
    board.be_ax650(chip='AX630C_CHIP')
    assert room() == {}


@pytest.fixture
def own_model(tmp_path):
    """Put a compiled model, and a catalogue that says what memory it wants."""

    def put(compiled_for='bm1684x', **fields):
        folder = tmp_path / 'models' / 'mine'
        folder.mkdir(parents=True)
        path = FIXTURES[f'internvl3_static_bf16_{compiled_for}'].unpack(folder)
        for name in ('config.json', 'tokenizer.json'):
            (folder / name).write_text('{}')
        entry = {
            'name': 'mine',
            'chip': 'bm1684x',
            'family': 'internvl',
            'files': {'model': {'path': path.name}},
            **fields,
        }
        (tmp_path / 'models' / 'catalogue.yaml').write_text(json.dumps({'models': [entry]}))
        return path

    return put


def test_a_bmodel_that_fits_is_said_to_fit(room, board, own_model):
    own_model(soc_memory={'npu': 2048, 'vpu': 2048, 'vpp': 2048})
    board.be_se7()
    found = room()['mine (bm1684x)']
    assert (found.state, found.found) == (State.OK, 'takes 3 of 9070 MiB')


def test_a_bmodel_larger_than_the_memory_is_a_warning(room, board, own_model):
    own_model()
    board.be_se7(npu=1, vpp=0)
    found = room()['mine (bm1684x)']
    assert (found.state, found.found) == (State.WARNING, 'takes 3 MiB, there are 1 MiB')
    assert 'memory_edit.sh' in found.remedy


def test_memory_shared_out_otherwise_than_the_publisher_says_is_a_warning(room, board, own_model):
    own_model(soc_memory={'npu': 7615, 'vpu': 2048, 'vpp': 2048})
    board.be_se7()
    found = room()['mine (bm1684x)']
    says = 'wants npu 7615, vpu 2048, vpp 2048 MiB, this SoC has npu 3950, vpu 2048, vpp 3072'
    assert (found.state, found.found) == (State.WARNING, says)
    assert './memory_edit.sh -c -npu 7615 -vpu 2048 -vpp 2048' in found.remedy
    assert 'reboot' in found.remedy


def test_a_bmodel_of_the_other_chip_or_a_damaged_one_is_a_warning(room, board, own_model):
    path = own_model('bm1688')
    board.be_se7()
    assert room()['mine (bm1684x)'].found.endswith('is built for bm1688')
    path.write_bytes(path.read_bytes()[:1000])
    assert 'truncated' in room()['mine (bm1684x)'].found


def test_the_command_looks_at_a_copied_machine(edge_vlm, board, tmp_path):
    put_set(tmp_path / 'models' / 'internvl3-2b', ALL.find('ax650', 'internvl3-2b'))
    board.be_ax650('Ax_Version V1.45.0_P39')
    env = {
        **os.environ,
        'EDGE_VLM_DOCTOR_ROOT': str(board.root),
        'XDG_DATA_HOME': str(tmp_path / 'data'),
    }
    done = edge_vlm('doctor', '--json', '--model-dir', tmp_path / 'models', env=env)
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)['findings']
    found = {finding['name']: finding for finding in findings}
    assert (found['SDK']['state'], found['CMM on chip']['state']) == ('warning', 'ok')
    # In the catalogue's own list, in the comparison with the memory, and in what to expect.
    name = 'internvl3-2b (ax650)'
    topics = [finding['topic'] for finding in findings if finding['name'] == name]
    assert topics == ['Models', 'Models and the memory here', 'Speed to expect here']
    assert '11.5 tokens/s (measured on AX650N board)' in found[name]['found']
