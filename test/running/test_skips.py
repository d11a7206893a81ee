"""In CI nothing is skipped: what CI never runs, nobody runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import environment

ROOT = Path(__file__).resolve().parents[2]
SKIPS = {
    'in a test': "import pytest\ndef test_it(): pytest.skip('no chip')\n",
    'by a mark': "import pytest\n@pytest.mark.skip('no chip')\ndef test_it(): pass\n",
    'a whole file': "import pytest\npytest.importorskip('no_chip')\ndef test_it(): pass\n",
    'in a fixture': (
        'import pytest\n@pytest.fixture\ndef chip(): pytest.skip("no chip")\n'
        'def test_it(chip): pass\n'
    ),
}
KNOWN = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False, 'no chip'\n"


def run(tmp_path, source, ci):
    (tmp_path / 'test_skipping.py').write_text(source)
    path = os.pathsep.join(map(str, (ROOT / 'test', ROOT)))
    words = [
        '-c',
        ROOT / 'pyproject.toml',
        '--rootdir',
        ROOT,
        '-p',
        'conftest',
        '-p',
        'no:cacheprovider',
    ]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', *words, tmp_path / 'test_skipping.py'],
        cwd=tmp_path,
        env=environment({'PYTHONPATH': path, 'CI': ci}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize('source', SKIPS.values(), ids=SKIPS)
def test_what_is_skipped_elsewhere_fails_in_ci_with_the_reason(tmp_path, source):
    status, printed = run(tmp_path, source, 'true')
    assert status in {1, 2}, printed
    assert 'in CI nothing is skipped' in printed
    assert 'no' in printed.partition('in CI nothing is skipped')[2]


def test_elsewhere_it_is_skipped_and_what_is_known_to_fail_is_no_skip(tmp_path):
    status, printed = run(tmp_path, SKIPS['in a test'], '')
    assert (status, '1 skipped' in printed) == (0, True), printed
    status, printed = run(tmp_path, KNOWN, 'true')
    assert (status, '1 xfailed' in printed) == (0, True), printed
