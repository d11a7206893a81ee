"""`make demo`: real processes, real middleware."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(240)]

COMMAND = [sys.executable, '-m', 'edge_vlm_ros.demo.run']
ROOT = Path(__file__).resolve().parents[2]
RIGHT = """\
answers:
  - {question: 'Describe', answer: 'A yellow cone on the left, a red box in the middle and a blue \
ball on the right.'}
  - {question: 'color is the ball', answer: 'Blue.'}
  - {question: 'moving', answer: 'The blue ball is moving away.'}
  - {question: 'clear', answer: 'No, a red box is in the way.'}
latency: {decode_s: 0.01}
"""


@pytest.fixture
def demo(ros_domain, tmp_path, spawn):
    """Start the demo in a domain of its own, optionally with a script for a model."""

    def start(*words, script=None):
        words = ['--out', tmp_path / 'out', '--domain', ros_domain, *words]
        if script is not None:
            path = tmp_path / 'script.yaml'
            path.write_text(script)
            words += ['--chip', 'scripted', '--model', path]
        return spawn([*COMMAND, *words], cwd=ROOT)

    return start


def _left_over(tmp_path):
    """Return the processes of this demo that still run: they have its log open."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            target = (process / 'fd' / '1').readlink()
        except OSError:
            continue
        if tmp_path / 'out' in target.parents:
            found.append(process.name)
    return found


def test_the_demo_model_is_right_about_the_shipped_clip(demo, tmp_path):
    run = demo()
    assert run.wait(200) == 0, run.output()
    text = run.output()
    assert '5 of 5 answers are right' in text
    assert cv2.imread(str(tmp_path / 'out' / 'answer.png')) is not None
    assert _left_over(tmp_path) == []


def test_right_answers_end_with_0_and_a_picture(demo, tmp_path):
    run = demo(script=RIGHT)
    assert run.wait(120) == 0, run.output()
    text = run.output()
    for words in ('Describe what you see.', 'Blue.', 'frames, ', 'tokens/s', '5 of 5 answers'):
        assert words in text
    assert cv2.imread(str(tmp_path / 'out' / 'answer.png')) is not None
    assert _left_over(tmp_path) == []


def test_a_wrong_answer_ends_with_1(demo, tmp_path):
    run = demo(script=RIGHT.replace('Blue.', 'Green.'))
    assert run.wait(120) == 1, run.output()
    assert 'wrong: Blue.' in run.output()
    assert '4 of 5 answers are right' in run.output()
    assert _left_over(tmp_path) == []


def test_a_model_that_fails_ends_with_3_and_the_step(demo, tmp_path):
    run = demo('--model', './no-such-model')
    assert run.wait(120) == 3, run.output()
    assert 'failed while' in run.output()
    assert 'no-such-model' in run.output()
    assert _left_over(tmp_path) == []


def test_a_node_that_dies_ends_it_with_3(demo, tmp_path):
    run = demo(script=RIGHT.replace('decode_s: 0.01', 'decode_s: 5'))
    run.wait_for_output('A  ', 90)
    vlm = [pid for pid in _left_over(tmp_path) if b'vlm_main' in _command_of(pid)]
    os.kill(int(min(vlm, key=int)), signal.SIGKILL)
    assert run.wait(60) == 3, run.output()
    assert 'the vlm node ended with -9' in run.output()
    assert _left_over(tmp_path) == []


def _command_of(pid):
    return Path('/proc', pid, 'cmdline').read_bytes()


@pytest.mark.parametrize(
    'when', ['loading', pytest.param('A  ', marks=pytest.mark.exhaustive, id='answering')]
)
def test_ctrl_c_ends_it_with_130_and_leaves_nothing(demo, tmp_path, when):
    run = demo(script=RIGHT.replace('decode_s: 0.01', 'decode_s: 5'))
    run.wait_for_output(when, 90)
    time.sleep(0.2)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(60) == 130, run.output()
    assert 'interrupted' in run.output()
    assert 'Traceback' not in run.output()
    assert _left_over(tmp_path) == []


@pytest.mark.parametrize(
    'words', [['--clip', 'no-such-clip.mp4'], ['--domain', '500'], ['--nonsense']]
)
def test_bad_usage_ends_with_2(words):
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'error:' in done.stderr
