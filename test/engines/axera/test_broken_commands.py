"""`edge-vlm ask` and `inspect` on libraries that print where they like, or kill the process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.axera.stub.build import build_stub

from edge_vlm_ros.core import ErrorCode

pytestmark = pytest.mark.axera

ROOT = Path(__file__).parents[3]
PATHS = (ROOT / 'test/support/axera/standin', ROOT / 'test', ROOT)
WORDS = 'the library says this on descriptor 1'
ASK = ('ask', '--max-tokens', '2', 'What is it?')
INSPECT = ('inspect',)


@pytest.fixture
def edge_vlm(write_set):
    """Run a command on the tiny set and the C stub, in a process of its own."""

    def run(*words, **moods):
        environment = {
            **{name: value for name, value in os.environ.items() if 'EDGE_VLM' not in name},
            'PYTHONPATH': os.pathsep.join(map(str, PATHS)),
            'EDGE_VLM_AX_LIBRARY': str(build_stub('ax650')),
            **moods,
        }
        command, *more = words
        model = ['--model'] if command == 'ask' else []
        which = [command, '--chip', 'ax650', *model, str(write_set('tiny')), '--json']
        return subprocess.run(
            [sys.executable, '-m', 'edge_vlm_ros.cli.main', *which, *more],
            env=environment,
            capture_output=True,
            encoding='utf-8',
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize('words', [ASK, INSPECT], ids=lambda words: words[0])
def test_json_stays_json_whatever_libraries_print_on_descriptor_1(edge_vlm, words):
    done = edge_vlm(*words, AX_STUB_PRINTS=WORDS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert WORDS in done.stderr


@pytest.mark.parametrize('number', [signal.SIGBUS, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_driver_that_kills_the_process_is_told_in_one_sentence(edge_vlm, number):
    done = edge_vlm(*INSPECT, AX_STUB_SIGNAL=str(int(number)))
    assert (done.returncode, done.stdout) == (3, '')
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'edge-vlm: the process with the model was ended by {number.name} (')
    assert '/dev/ax_*' in line
    assert 'until a reboot' in line


def test_a_question_that_the_driver_kills_is_reported_as_json(edge_vlm):
    done = edge_vlm(*ASK, AX_STUB_SIGNAL=str(int(signal.SIGBUS)))
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report['error_code'] == ErrorCode.ENGINE_DIED
    assert 'ended by SIGBUS' in report['message']
