"""Getting the chip emulators out of the vendor's wheel; what tests do where they are missing."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.sophgo import emulator as runner

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def setup(monkeypatch):
    """The set-up's modules import each other by their plain names."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'setup'))
    import console
    import emulator

    yield emulator, console
    for name in ('console', 'emulator'):
        sys.modules.pop(name)


def write_wheel(path, names):
    with zipfile.ZipFile(path, 'w') as archive:
        for name in names:
            archive.writestr(f'tpu_mlir/lib/{name}', f'code of {name}')


COMPLETE = (
    'libbmrt.so.1.0', 'libbmlib.so.0', 'libcmodel_bm1684x.so', 'libcmodel_bm1688.so', 'other.so',
)  # fmt: skip


def test_each_chip_gets_a_folder_in_which_its_emulator_is_called_libcmodel(setup, tmp_path):
    emulator, _ = setup
    wheel = tmp_path / 'tpu_mlir.whl'
    write_wheel(wheel, COMPLETE)
    folder = tmp_path / 'emulator'
    (folder / 'old').mkdir(parents=True)
    emulator.extract(wheel, folder)
    assert sorted(p.name for p in folder.iterdir()) == ['bm1684x', 'bm1688']
    for chip in ('bm1684x', 'bm1688'):
        files = {p.name: p.read_text() for p in (folder / chip).iterdir()}
        assert files == {
            'libbmrt.so.1.0': 'code of libbmrt.so.1.0',
            'libbmlib.so.0': 'code of libbmlib.so.0',
            'libcmodel.so': f'code of libcmodel_{chip}.so',
        }


@pytest.mark.parametrize('content', [b'', b'no zip', None], ids=['empty', 'text', 'incomplete'])
def test_a_damaged_wheel_leaves_what_was_there(setup, tmp_path, content):
    emulator, console = setup
    wheel = tmp_path / 'tpu_mlir.whl'
    if content is None:
        write_wheel(wheel, COMPLETE[:3])
    else:
        wheel.write_bytes(content)
    folder = tmp_path / 'emulator'
    folder.mkdir()
    (folder / 'old').write_text('kept')
    with pytest.raises(console.SetupError, match=r'tpu_mlir\.whl'):
        emulator.extract(wheel, folder)
    assert (folder / 'old').read_text() == 'kept'


def test_the_wheel_is_asked_for_by_its_tag_and_forgotten(setup, tmp_path, monkeypatch):
    emulator, _ = setup
    monkeypatch.setattr(emulator, 'runs_here', lambda: True)
    commands = []

    def download(command):
        commands.append(command)
        folder = Path(command[command.index('--dest') + 1])
        write_wheel(folder / 'tpu_mlir-1.30.2-py3-none-any.whl', COMPLETE)

    requirements = tmp_path / 'emulator.txt'
    emulator.install(tmp_path / 'emulator', requirements, ['python', '-m', 'pip'], download)
    (command,) = commands
    assert command[:4] == ['python', '-m', 'pip', 'download']
    assert command[-2:] == ['--requirement', str(requirements)]
    # The wheel's modules are for CPython 3.10, this Python may be another.
    assert command[command.index('--python-version') + 1] == '3.10'
    assert not Path(command[command.index('--dest') + 1]).exists()
    assert (tmp_path / 'emulator' / 'bm1688' / 'libcmodel.so').exists()


def test_other_machines_are_told_and_nothing_is_downloaded(setup, tmp_path, monkeypatch, capsys):
    emulator, _ = setup
    monkeypatch.setattr(emulator, 'runs_here', lambda: False)
    emulator.install(tmp_path / 'emulator', tmp_path, [], run=pytest.fail)
    assert 'skipped' in capsys.readouterr().out
    assert not (tmp_path / 'emulator').exists()


def test_the_set_up_and_the_tests_agree_on_folders_and_names(setup):
    emulator, _ = setup
    assert emulator.CHIPS == runner.CHIPS
    assert sorted(emulator.library_files('bm1688')) == sorted(runner.LIBRARIES)


@pytest.mark.parametrize(('ci', 'status', 'word'), [('true', 1, 'error'), ('', 0, 'skipped')])
def test_without_the_emulators_tests_fail_in_ci_and_are_skipped_elsewhere(
    tmp_path, ci, status, word
):
    one = 'test_stand_in.py::test_only_functions_that_another_process_can_find_are_called'
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-o', 'addopts=',
         '--import-mode=importlib', '-rs', f'test/engines/sophgo/{one}'],
        cwd=ROOT,
        env={**os.environ, 'CI': ci, 'EDGE_VLM_EMULATOR': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    assert f'1 {word}' in done.stdout
    assert 'no chip emulator' in done.stdout
