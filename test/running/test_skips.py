"""In CI nothing is skipped: what CI never runs, nobody runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.environment import environment

ROOT = Path(__file__).resolve().parents[2]
SKIPS = {
    'in_a_test': "import pytest\ndef test_it(): pytest.skip('no chip')\n",
    'by_a_mark': "import pytest\n@pytest.mark.skip('no chip')\ndef test_it(): pass\n",
    'a_whole_file': "import pytest\npytest.importorskip('no_chip')\ndef test_it(): pass\n",
    'in_a_fixture': (
        'import pytest\n@pytest.fixture\ndef chip(): pytest.skip("no chip")\n'
        'def test_it(chip): pass\n'
    ),
}
KNOWN = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False, 'no chip'\n"


def run(tmp_path, sources, ci):
    """Run test files, `test_<name>.py` each; return exit status and what was printed."""
    for name, source in sources.items():
        (tmp_path / f'test_{name}.py').write_text(source)
    path = os.pathsep.join(map(str, (ROOT / 'test', ROOT)))
    words = [
        *('-c', ROOT / 'pyproject.toml', '--rootdir', ROOT),
        *('-p', 'conftest', '-p', 'no:cacheprovider', '--continue-on-collection-errors'),
    ]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', *words, tmp_path],
        cwd=tmp_path,
        env=environment({'PYTHONPATH': path, 'CI': ci}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_what_is_skipped_elsewhere_fails_in_ci_with_the_reason(tmp_path):
    status, printed = run(tmp_path, {**SKIPS, 'known': KNOWN}, 'true')
    assert status == 1, printed
    summary = printed.partition('short test summary')[2]
    failed = [line for line in summary.splitlines() if line.startswith(('FAILED', 'ERROR'))]
    assert len(failed) == len(SKIPS), printed
    for name in SKIPS:
        assert any(f'test_{name}.py' in line for line in failed), printed
    reasons = printed.split('in CI nothing is skipped')[1:]
    assert len(reasons) >= len(SKIPS), printed
    assert all('no' in reason for reason in reasons)
    assert '1 xfailed' in printed, 'what is known to fail is no skip'


def test_elsewhere_it_is_skipped(tmp_path):
    status, printed = run(tmp_path, SKIPS, '')
    assert (status in {0, 5}, '4 skipped' in printed) == (True, True), printed
