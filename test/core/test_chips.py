"""The tables of chips and families, and what other packages bring to them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support import packages

from edge_vlm_ros.core import (
    CHIPS,
    FAMILIES,
    BadRequestError,
    ErrorCode,
    FileForm,
    PackageError,
    broken_chips,
    broken_families,
    chip_named,
    chip_names,
    family_names,
    family_of_type,
    is_chip,
    is_family,
    known_chips,
    known_model_types,
)

ROOT = Path(__file__).resolve().parents[2]
ROW = """
from edge_vlm_ros.core import Chip, FileForm

ROW = Chip({name!r}, 'Acme', FileForm.ONE_FILE, '.acme', engine='acme_engine')
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Install packages of others: `install('acme', {'acme.py': text}, acme='acme:ROW')`."""

    def put(name, files, group=packages.CHIPS, **points):
        folder = tmp_path / name
        packages.install_package(monkeypatch, folder, name, files, {group: points})

    return put


def test_every_row_is_whole_and_names_modules_that_are_there():
    assert len(set(chip_names())) == len(CHIPS)
    for chip in CHIPS:
        assert chip_named(chip.name) is chip
        assert chip.vendor
        assert callable(named(chip.backend).open)
        if chip.file_form is FileForm.NO_FILES:
            assert callable(named(chip.check))
            continue
        assert chip.suffix.startswith('.')
        assert chip.default_model
        assert callable(import_module(chip.engine).open_engine)


def named(path):
    """Return what is named 'module:name'."""
    module, _, name = path.partition(':')
    return getattr(import_module(module), name)


def test_every_family_has_a_module_with_options_and_a_reader():
    for row in FAMILIES:
        module = import_module(row.module)
        assert callable(module.read)
        assert 'resize' in module.OPTIONS.names()
        assert [family_of_type(kind) for kind in row.model_types] == [row] * len(row.model_types)


def test_a_chip_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(BadRequestError) as caught:
        chip_named('toaster')
    assert caught.value.code is ErrorCode.UNSUPPORTED_OPTION
    assert caught.value.message == (
        "there is no chip 'toaster'; chips are: cpu, scripted, bm1684x, bm1688, ax650, ax630c, "
        'remote'
    )
    assert not is_chip('toaster')


def test_a_chip_of_another_package_is_one_more_row(install):
    install('acme', {'acme_row.py': ROW.format(name='acme')}, acme='acme_row:ROW')
    assert chip_names()[-1] == 'acme'
    assert is_chip('acme')
    chip = chip_named('acme')
    assert (chip.vendor, chip.file_form, chip.suffix) == ('Acme', FileForm.ONE_FILE, '.acme')
    assert known_chips() == (*CHIPS, chip)
    assert broken_chips() == ()
    with pytest.raises(BadRequestError, match=r'chips are: cpu, .*, acme'):
        chip_named('toaster')


BROKEN = {
    'raises': ({'m_raises.py': 'raise RuntimeError("no driver\\nhere")'}, 'm_raises:ROW',
               'm_raises:ROW cannot be loaded: RuntimeError: no driver here'),
    'exits': ({'m_exits.py': 'raise SystemExit(3)'}, 'm_exits:ROW', 'SystemExit: 3'),
    'missing': ({}, 'm_nowhere:ROW', "ModuleNotFoundError: No module named 'm_nowhere'"),
    'lacks': ({'m_lacks.py': ''}, 'm_lacks:ROW', 'AttributeError'),
    'other': ({'m_other.py': 'ROW = 3'}, 'm_other:ROW', 'm_other:ROW is no Chip, but a int'),
    'alias': ({'m_alias.py': ROW.format(name='acme')}, 'm_alias:ROW', "calls itself 'acme'"),
    'cpu': ({'m_cpu.py': ROW.format(name='cpu')}, 'm_cpu:ROW', 'edge_vlm_ros has one of this'),
}  # fmt: skip


@pytest.mark.parametrize('name', BROKEN)
def test_a_broken_package_is_named_and_spoils_no_other_chip(install, name):
    files, value, problem = BROKEN[name]
    install('good', {'m_good.py': ROW.format(name='good')}, good='m_good:ROW')
    install(f'broken-{name}', files, **{name: value})
    assert [chip.name for chip in known_chips()][len(CHIPS) :] == ['good']
    (broken,) = broken_chips()
    assert (broken.name, broken.package) == (name, f'broken-{name} 1.0')
    assert problem in broken.problem
    if name == 'cpu':
        assert chip_named('cpu').vendor != 'Acme', 'ours stays'
        return
    told = f"{packages.CHIPS}: '{name}' of package broken-{name} "
    with pytest.raises(PackageError, match=told):
        chip_named(name)


def test_a_chip_that_two_packages_bring_is_refused_with_both(install):
    for package in ('one', 'two'):
        files = {f'm_{package}.py': ROW.format(name='acme')}
        install(package, files, acme=f'm_{package}:ROW')
    with pytest.raises(PackageError, match=r'package (one|two) 1\.0 and (one|two) 1\.0'):
        chip_named('acme')
    assert chip_names().count('acme') == 1


def test_another_process_sees_the_same_chips(install, tmp_path):
    install('acme', {'acme_row.py': ROW.format(name='acme')}, acme='acme_row:ROW')
    code = 'from edge_vlm_ros.core import chip_named; print(chip_named("acme").vendor)'
    path = os.pathsep.join([str(tmp_path / 'acme'), str(ROOT)])
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == 'Acme'


FAMILY = """
from edge_vlm_ros.core import FamilyRow

ROW = FamilyRow('acme', ('acme_vl', 'acme2_vl'), 'acme_family')
"""


def test_a_family_of_another_package_is_one_more_row(install):
    install('acme', {'acme_row.py': FAMILY}, packages.FAMILIES, acme='acme_row:ROW')
    install('bad', {}, packages.FAMILIES, bad='m_nowhere:ROW')
    assert family_names()[-2:] == ('acme', 'bad')
    assert is_family('acme')
    assert {'acme_vl', 'acme2_vl'} < set(known_model_types())
    assert family_of_type('acme2_vl').module == 'acme_family'
    assert family_of_type('llava') is None
    assert [row.name for row in broken_families()] == ['bad']
