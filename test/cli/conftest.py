"""Run the real `edge-vlm` in a process of its own, with a script for a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, '-m', 'edge_vlm_ros.cli.main']
SCRIPT = """\
answers:
  - question: 'slow'
    answer: 'one two three four five six seven eight nine ten and much more than that'
  - question: 'language'
    answer: 'Grüße, 你好, 🙂.'
  - question: 'Yes or no'
    answer: 'Yes.'
  - answer: '{images} seen with {means}: {question}'
latency: {decode_s: 0.01}
faults:
  - {at: decode, kind: error, question: 'broken device', token: 2, message: 'the chip got hot'}
"""


@pytest.fixture
def script(tmp_path):
    """Give a model that answers by rule: how many images, how bright, what was asked."""
    path = tmp_path / 'script.yaml'
    path.write_text(SCRIPT, encoding='utf-8')
    return path


@pytest.fixture
def edge_vlm():
    """Run one command to its end."""

    def run(*words, timeout=60, **options):
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            cwd=ROOT,  # for LICENSE, which is no image
            capture_output=True,
            encoding='utf-8',
            timeout=timeout,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def ask(edge_vlm, script):
    """Run `edge-vlm ask` on the scripted model."""

    def run(*words, **options):
        return edge_vlm('ask', '--chip', 'scripted', '--model', script, *words, **options)

    return run


@pytest.fixture
def slow_command(script):
    """Give a command that answers for seconds: a signal to the first of its two processes alone
    is passed on after one."""
    script.write_text(SCRIPT.replace('decode_s: 0.01', 'decode_s: 0.05'), encoding='utf-8')
    return [*COMMAND, 'ask', '--chip', 'scripted', '--model', str(script), 'slow']


@pytest.fixture
def grey_image(tmp_path):
    """Write an image of one grey; give its path."""

    def write(level, name='', size=(48, 64)):
        path = tmp_path / (name or f'grey{level}.png')
        cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))
        return path

    return write


@pytest.fixture
def grey_folder(tmp_path):
    """Write a folder of images, each brighter than the one before, two to a second of video."""

    def write(levels):
        folder = tmp_path / 'drive'
        folder.mkdir()
        for number, level in enumerate(levels):
            path = str(folder / f'{number:03}.png')
            cv2.imwrite(path, np.full((48, 64, 3), level, np.uint8))
        return folder

    return write
