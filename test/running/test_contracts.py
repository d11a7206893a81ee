"""The table of contracts names tests that exist, in the target that it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.axera.sets import TINY_LAYOUTS
from support.environment import environment
from support.sophgo.fixtures import FIXTURES

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / 'test' / 'CONTRACTS.md').read_text(encoding='utf-8')
CASE = re.compile(r'`([\w/]+\.py::[^`]+)`')
FAMILIES = {'InternVL', 'Qwen2-VL', 'Llama 3.2 Vision'}
COLLECT = """
import json, sys
from pathlib import Path
import pytest

class Show:
    def pytest_collection_finish(self, session):
        marked = {i.nodeid: i.get_closest_marker('exhaustive') is not None for i in session.items}
        Path(sys.argv[1]).write_text(json.dumps(marked))

sys.exit(pytest.main(['--collect-only', '-qq', '-p', 'no:cacheprovider', 'test'], [Show()]))
"""


MOST = 5000
"""Who has collected so many has collected all."""


@pytest.fixture(scope='module')
def collected(tmp_path_factory, collected_here):
    """Collect all tests: id without 'test/' -> whether it is exhaustive."""
    if len(collected_here) > MOST:
        return {k.removeprefix('test/'): v for k, v in collected_here.items()}
    path = tmp_path_factory.mktemp('collected') / 'ids.json'
    done = subprocess.run(
        [sys.executable, '-c', COLLECT, str(path)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return {k.removeprefix('test/'): v for k, v in json.loads(path.read_text()).items()}


def rows():
    """Return the rows of all tables, cell by cell."""
    lines = [line for line in TABLE.splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]


def cases_of(pattern, collected):
    """Return the collected tests that a name of the table stands for."""
    text = re.escape(pattern).replace(r'\*', '.*')
    wanted = re.compile(text if pattern.endswith((']', '*')) else rf'{text}(\[.*\])?')
    return {name for name in collected if wanted.fullmatch(name)}


def claimed(target):
    """Return the cases that the table has in a target."""
    return {
        name for row in rows() if row[-1].rstrip('| ') == target for name in CASE.findall(row[2])
    }


def alike():
    """Return the last table: exhaustive case -> the cases that prove the same."""
    found = {}
    for case, proved_by, _ in (row for row in rows() if len(row) == 3):
        if CASE.search(case):
            found[CASE.findall(case)[0]] = CASE.findall(proved_by)
    return found


ONLY_HERE = {name for row in rows() if row[1] == 'only here' for name in CASE.findall(row[0])}


def test_every_case_of_the_table_exists(collected):
    missing = {name for name in CASE.findall(TABLE) if not cases_of(name, collected)}
    assert not missing


def test_each_case_is_in_the_target_that_the_table_says(collected):
    for name in claimed('test'):
        # A pattern may also cover cases that stand in a row of their own.
        assert not all(collected[case] for case in cases_of(name, collected)), name
    for name in claimed('test-all'):
        assert all(collected[case] for case in cases_of(name, collected)), name


def test_every_row_says_its_target():
    named = [row for row in rows() if len(row) != 3 and CASE.search(row[2])]
    assert len(named) > 80
    assert {row[-1].rstrip('| ') for row in named} == {'test', 'test-all'}


def test_every_exhaustive_test_is_explained_by_what_else_proves_it_or_by_its_price(collected):
    pairs = alike()
    marked = {name for name, is_exhaustive in collected.items() if is_exhaustive}
    explained = {case for name in pairs for case in cases_of(name, collected)}
    assert marked == explained
    for name, proved_by in pairs.items():
        cases = {case for other in proved_by for case in cases_of(other, collected)}
        assert cases or name in ONLY_HERE, name
        assert not cases & marked, name


def test_every_compiled_model_layout_and_family_has_its_row(collected):
    ids = ' '.join(collected)
    for name in FIXTURES:
        assert name in TABLE, name
        assert name in ids or name.startswith(('demo', 'hazard')), name
    for layout in TINY_LAYOUTS:
        for backend in ('portable', 'in_place'):
            assert f'[{layout}-{backend}]' in TABLE, layout
    cells = {row[1] for row in rows()}
    assert cells >= FAMILIES
