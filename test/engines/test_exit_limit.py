"""What a vendor's package does at the interpreter's exit takes a limited time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.environment import environment

PROGRAM = """
import atexit, sys, threading
from edge_vlm_ros.engines import exit_limit
exit_limit._LIMIT_S = 0.3
atexit.register(print, 'the last', flush=True)
with exit_limit.exit_limited('vendor'):
    atexit.register(threading.Event().wait if sys.argv[1] == 'hangs' else int)
with exit_limit.exit_limited('vendor'):
    pass
atexit.register(print, 'the first', flush=True)
"""


@pytest.mark.parametrize(
    ('kind', 'status', 'said'), [('hangs', 1, 'the first\n'), ('ends', 0, 'the first\nthe last\n')]
)
def test_a_shut_down_that_hangs_ends_the_process_and_says_where(kind, status, said):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, kind],
        env=environment({'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (status, said), done.stderr
    assert ('Timeout' in done.stderr) == (kind == 'hangs')
