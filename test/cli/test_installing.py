"""The line that installs: it fits the Python and the OpenCV that are found by looking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edge_vlm_ros.cli import installing, python_probes
from edge_vlm_ros.cli.findings import State
from edge_vlm_ros.cli.installing import PythonHome, PythonKind, is_built_for_numpy_1, kind_of
from edge_vlm_ros.cli.python_probes import PACKAGES, Package, find_python

ROOT = Path(__file__).resolve().parents[2]
# The names that `import_array` of each numpy's headers leaves in a library.
NUMPY_1_NAMES = b'\0numpy.core._multiarray_umath\0numpy.core.multiarray failed to import\0'
NUMPY_2_NAMES = b'\0numpy._core._multiarray_umath\0' + NUMPY_1_NAMES
ABSENT = Package('no_such_module', 'no-such-package')


def home(kind, **facts):
    return PythonHome('/usr/bin/python3', kind, **facts)


# --- which Python ---


def test_the_python_of_these_tests_is_a_virtual_environment():
    assert installing.this_python().kind is PythonKind.VIRTUAL


@pytest.mark.parametrize(
    ('prefix', 'base_prefix', 'is_managed', 'kind'),
    [
        ('/usr', '/usr', False, PythonKind.SYSTEM),  # Ubuntu 22.04
        ('/usr', '/usr', True, PythonKind.SYSTEM),  # Ubuntu 24.04
        ('/opt/managed', '/opt/managed', True, PythonKind.SYSTEM),
        ('/usr/local', '/usr/local', False, PythonKind.OWN),
        ('/home/me/venv', '/usr', True, PythonKind.VIRTUAL),
    ],
)
def test_whose_a_python_is(tmp_path, prefix, base_prefix, is_managed, kind):
    if is_managed:
        (tmp_path / 'EXTERNALLY-MANAGED').write_text('[externally-managed]\n')
    assert kind_of(prefix, base_prefix, tmp_path) is kind


# --- which numpy ---


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'ELF' + NUMPY_1_NAMES, True),
        (b'ELF' + NUMPY_2_NAMES, False),
        (b'ELF without numpy', False),
        (b'', False),
        (None, False),
    ],
)
def test_a_library_shows_which_numpy_it_was_built_for(tmp_path, content, expected):
    library = tmp_path / 'cv2.so'
    if content is not None:
        library.write_bytes(content)
    assert is_built_for_numpy_1(library) is expected


def test_the_opencv_of_these_tests_is_built_for_its_numpy():
    import numpy as np

    library = installing.opencv_library()
    assert library is not None
    assert library.suffix == '.so'
    assert not (is_built_for_numpy_1(library) and np.__version__.startswith('2.'))


@pytest.mark.parametrize(
    'name', ['cv2.abi3.so', 'python-3.10/cv2.cpython-310-x86_64-linux-gnu.so']
)
def test_the_library_of_a_wheel_and_of_an_own_build_is_found_without_an_import(
    tmp_path, monkeypatch, name
):
    library = tmp_path / 'cv2' / name
    library.parent.mkdir(parents=True)
    library.write_bytes(NUMPY_1_NAMES)
    (tmp_path / 'cv2' / '__init__.py').write_text('raise ImportError("numpy.core.multiarray")')
    monkeypatch.delitem(sys.modules, 'cv2', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert installing.opencv_library() == library


def test_the_library_of_a_distribution_is_the_module_itself(tmp_path, monkeypatch):
    library = tmp_path / f'cv2{sysconfig.get_config_var("EXT_SUFFIX")}'
    library.write_bytes(NUMPY_1_NAMES)
    monkeypatch.delitem(sys.modules, 'cv2', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert installing.opencv_library() == library


@pytest.mark.parametrize(
    ('version', 'needs_numpy_1', 'expected'),
    [('1.26.4', True, False), ('2.2.6', True, True), ('2.2.6', False, False), ('', True, False)],
)
def test_numpy_2_is_too_new_for_an_opencv_built_for_numpy_1(version, needs_numpy_1, expected):
    python = home(PythonKind.OWN, needs_numpy_1=needs_numpy_1, numpy_version=version)
    assert python.is_numpy_too_new is expected


# --- the line ---


def test_an_environment_is_installed_into_and_keeps_numpy_1_where_opencv_needs_it():
    line = home(PythonKind.VIRTUAL).install_line(['onnxruntime'])
    assert line == '/usr/bin/python3 -m pip install onnxruntime'
    line = home(PythonKind.VIRTUAL, needs_numpy_1=True).install_line(['onnxruntime'])
    assert line == "/usr/bin/python3 -m pip install onnxruntime 'numpy<2'"


@pytest.mark.parametrize('needs_numpy_1', [False, True])
def test_the_python_of_a_distribution_gets_an_environment_that_sees_its_packages(needs_numpy_1):
    line = home(PythonKind.SYSTEM, needs_numpy_1=needs_numpy_1).install_line(['onnxruntime'])
    assert line.split(' && ') == [
        '/usr/bin/python3 -m venv --system-site-packages venv',
        'touch venv/COLCON_IGNORE',
        '. venv/bin/activate',
        "pip install onnxruntime 'numpy<2'" if needs_numpy_1 else 'pip install onnxruntime',
    ]


def test_where_venv_is_not_whole_the_line_begins_with_its_package():
    line = home(PythonKind.SYSTEM, can_make_venv=False).install_line(['onnxruntime'])
    assert line.startswith('sudo apt install python3-venv && /usr/bin/python3 -m venv ')


# --- what the doctor says ---


@pytest.mark.parametrize('needs_numpy_1', [False, True])
def test_nothing_is_advised_to_be_installed_into_the_python_of_a_distribution(needs_numpy_1):
    python = home(PythonKind.SYSTEM, needs_numpy_1=needs_numpy_1)
    _, *modules, environment = find_python(python, (ABSENT, Package('other_module', 'other')))
    assert [f.state for f in modules] == [State.MISSING] * 2
    assert not any('pip install' in f.remedy for f in modules)
    assert (environment.name, environment.state) == ('environment', State.WARNING)
    assert python.install_line(['no-such-package', 'other']) in environment.remedy


def test_what_the_distribution_has_comes_first_since_it_decides_on_numpy(monkeypatch):
    monkeypatch.setattr(python_probes.shutil, 'which', lambda _: '/usr/bin/apt-get')
    lacking = (Package('no_such_cv2', 'opencv-python-headless', 'python3-opencv'), ABSENT)
    environment = find_python(home(PythonKind.SYSTEM), lacking)[-1]
    assert environment.remedy == 'sudo apt install python3-opencv, then ask the doctor again'
    environment = find_python(home(PythonKind.SYSTEM), lacking[:1])[-1]
    assert environment.remedy == 'sudo apt install python3-opencv'


def test_an_opencv_that_numpy_2_broke_gets_numpy_1_and_no_second_opencv(monkeypatch):
    reason = 'ImportError: numpy.core.multiarray failed to import'
    monkeypatch.setattr(python_probes, 'import_error', lambda _: reason)
    python = home(PythonKind.VIRTUAL, needs_numpy_1=True, numpy_version='2.2.6')
    _, found = find_python(python, tuple(p for p in PACKAGES if p.module == 'cv2'))
    assert found.found == f'{reason} (OpenCV is built for numpy 1 here, numpy is 2.2.6)'
    assert found.remedy == "/usr/bin/python3 -m pip install 'numpy<2'"


def test_a_python_with_all_packages_needs_no_environment():
    findings = find_python()
    assert {f.state for f in findings} == {State.OK}
    assert [f.name for f in findings] == ['python', *(p.name for p in PACKAGES)]


@pytest.mark.skipif(not Path('/usr/bin/python3').exists(), reason='no Python of a distribution')
def test_the_doctor_of_a_real_distribution_never_advises_pip_for_it(tmp_path):
    python = '/usr/bin/python3'
    is_new_enough = [python, '-c', 'import sys; assert sys.version_info >= (3, 10)']
    if subprocess.run(is_new_enough, check=False, capture_output=True).returncode:
        pytest.skip('older than Python 3.10')
    # Nothing of this test's environment is seen.
    env = {'PATH': os.defpath, 'HOME': str(tmp_path), 'PYTHONDONTWRITEBYTECODE': '1'}
    words = [python, '-m', 'edge_vlm_ros.cli.main', 'doctor', '--json']
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    findings = {f['name']: f for f in json.loads(done.stdout)['findings']}
    assert 'the Python of the distribution' in findings['python']['found']
    lines = [f['remedy'] for f in findings.values() if 'pip install' in f['remedy']]
    assert all('-m venv --system-site-packages venv' in line for line in lines), lines
