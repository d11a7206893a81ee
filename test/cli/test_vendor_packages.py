"""What the doctor says of the vendors' Python packages: what they need, can do and lack."""

from __future__ import annotations

import sys

import pytest

from edge_vlm_ros.cli import axengine_probe
from edge_vlm_ros.cli.axengine_probe import find_axengine, lacks
from edge_vlm_ros.cli.findings import State
from edge_vlm_ros.cli.machine import Machine
from edge_vlm_ros.cli.sail_probe import find_sail, how_to_get

RC3 = {
    '__init__.py': '__version__ = "0.1.3"\n',
    '_axe.py': 'import mmap\nresult = buffer.copy()\n',
    '_providers.py': 'DEVICE = "/dev/axcl_host"\n',
}
OLDER = {
    'rc2': {'_providers.py': ''},
    'rc1': {'_providers.py': '', '_axe.py': 'result = buffer.copy()\n'},
    'rc0': {'_providers.py': '', '_axe.py': ''},
}
"""What of the package's files is otherwise in older wheels of the same number."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Put files on the path of this process and of those that it starts."""
    folder = tmp_path / 'site'
    monkeypatch.setenv('PYTHONPATH', str(folder))
    monkeypatch.syspath_prepend(str(folder))

    def put(package, **files):
        (folder / package).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / package / name).write_text(text)
        return folder / package

    yield put
    for name in [name for name in sys.modules if name.partition('.')[0] == 'sophon']:
        del sys.modules[name]


def findings(found):
    return {finding.name: finding for finding in found}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / 'board')


# --- axengine ------------------------------------------------------------------------------------


def test_the_newest_wheel_lacks_nothing(site):
    assert lacks(site('axengine', **RC3)) == []


@pytest.mark.parametrize(('wheel', 'count'), [('rc2', 1), ('rc1', 2), ('rc0', 3)])
def test_wheels_of_one_number_are_known_by_what_they_can_do(site, wheel, count):
    assert len(lacks(site('axengine', **{**RC3, **OLDER[wheel]}))) == count


@pytest.mark.parametrize(
    ('wheel', 'state', 'says'),
    [
        ('rc0', State.WARNING, 'keeps every model file in host memory'),
        ('rc2', State.OK, 'names a card first even where there is none'),
    ],
)
def test_the_doctor_says_what_an_older_wheel_lacks(site, machine, wheel, state, says):
    site('axengine', **{**RC3, **OLDER[wheel]})
    found = findings(find_axengine('Axera', machine))['axengine']
    assert (found.state, says in found.found) == (state, True)
    assert ('0.1.3.rc3' in found.remedy) is (state is State.WARNING)


@pytest.mark.parametrize(('module', 'package'), [('cffi', 'cffi'), ('ml_dtypes', 'ml-dtypes')])
def test_the_doctor_looks_for_what_the_package_imports_later(site, machine, module, package):
    site('axengine', **RC3)
    site(module, **{'__init__.py': f'raise ImportError("{module} is of another Python")\n'})
    found = findings(find_axengine('Axera', machine))[package]
    assert found.state is State.WARNING
    assert found.found == f'axengine needs it: ImportError: {module} is of another Python'
    assert found.remedy == f'{sys.executable} -m pip install --force-reinstall {package}'


@pytest.mark.parametrize(('has_device', 'way'), [(False, 'chip'), (True, 'card')])
def test_with_both_libraries_the_doctor_says_which_way_is_taken(
    site, machine, monkeypatch, has_device, way
):
    site('axengine', **RC3)
    monkeypatch.setattr(axengine_probe.ctypes.util, 'find_library', lambda name: f'lib{name}.so')
    if has_device:
        (machine.root / 'dev').mkdir(parents=True)
        (machine.root / 'dev/axcl_host').touch()
    found = findings(find_axengine('Axera', machine))['provider']
    assert found.found.endswith(f'{way} is taken')
    assert 'option provider' in found.remedy


# --- sophon-sail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('version', 'is_bm1688', 'state', 'says'),
    [
        ('3.8.0', False, State.WARNING, 'has no EngineLLM'),
        ('3.9.0', False, State.WARNING, 'ends the process at a wrong shape'),
        ('3.9.1', False, State.OK, 'its own scratch memory'),
        ('3.9.1', True, State.WARNING, 'its own scratch memory'),
        ('3.9.4', True, State.OK, ''),
        ('3.10.7', False, State.OK, ''),
    ],
)
def test_an_old_sail_is_named_with_what_it_lacks(site, machine, version, is_bm1688, state, says):  # noqa: PLR0913, PLR0917 (a row's columns)
    site('sophon', **{'__init__.py': '', 'sail.py': f'__version__ = {version!r}\n'})
    found = find_sail(machine, is_bm1688=is_bm1688)
    assert found.state is state
    assert found.found.startswith(version)
    assert says in found.found
    assert (',' in found.found) is bool(says)
    assert ('3.9.4 or later: ' in found.remedy) is (state is State.WARNING)


def test_without_sail_this_python_is_told_how_to_get_one(machine):
    found = find_sail(machine, is_bm1688=False)
    assert found.state is State.ABSENT
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    assert f"the vendor's wheels are for Python 3.8, this is {version}: build" in found.remedy
    assert '-DONLY_RUNTIME=ON' in found.remedy
    assert 'python/soc' in found.remedy


def test_a_python_with_wheels_is_told_which_are_for_which_board(machine):
    told = how_to_get(machine, (3, 8))
    assert 'sophon_arm-3.8.0: BM1688 SoC (SDK v1.7)' in told
    assert 'sophon_arm-3.9.2: BM1684X SoC' in told


def test_a_card_gets_the_wheel_of_a_card(machine):
    (machine.root / 'dev').mkdir(parents=True)
    (machine.root / 'dev/bm-sophon0').touch()
    assert 'python/pcie' in how_to_get(machine, (3, 11))
