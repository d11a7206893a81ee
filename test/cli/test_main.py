"""The frame around the commands: quick help, one line for what goes wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_vlm_ros.cli import main as cli
from edge_vlm_ros.cli.exits import ExitCode, exit_code_of
from edge_vlm_ros.core import ErrorCode


def test_help_loads_nothing_heavy(edge_vlm):
    done = edge_vlm('--help')
    assert done.returncode == 0
    code = (
        'import sys; from edge_vlm_ros.cli.parser import build_parser; build_parser();'
        'heavy = {"numpy", "cv2", "onnxruntime", "transformers", "rclpy"};'
        'print(sorted(heavy & set(sys.modules)))'
    )
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert told.stdout == '[]\n'


def test_no_command_is_bad_usage(edge_vlm):
    done = edge_vlm()
    assert (done.returncode, done.stdout) == (2, '')


@pytest.mark.parametrize('code', list(ErrorCode))
def test_every_error_has_an_exit_code(code):
    found = exit_code_of(code)
    expected = {1: ExitCode.BAD_INPUT, 2: ExitCode.BAD_INPUT}.get(code // 100, ExitCode.NOT_USABLE)
    expected = {
        ErrorCode.NONE: ExitCode.DONE,
        ErrorCode.DEADLINE: ExitCode.TOO_LATE,
        ErrorCode.CANCELLED: ExitCode.INTERRUPTED,
    }.get(code, expected)
    assert found is expected


@pytest.mark.parametrize(
    ('error', 'says'),
    [
        (ModuleNotFoundError("No module named 'numpy'"), 'edge-vlm doctor'),
        (RuntimeError('who knows'), 'a fault of edge-vlm: RuntimeError: who knows'),
    ],
)
def test_faults_are_one_line_unless_a_trace_is_asked_for(monkeypatch, capsys, error, says):
    def fail(_):
        raise error

    monkeypatch.setattr(cli.importlib, 'import_module', fail)
    assert cli.main(['doctor']) == 3
    assert says in capsys.readouterr().err
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, '1')
    with pytest.raises(type(error)):
        cli.main(['doctor'])
