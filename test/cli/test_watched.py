"""A command in a child process: its exit code, its death, and signals, each of them once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
import os, signal, sys, time
from edge_vlm_ros.cli.watched import Death, run_watched

heard = []

def command():
    def note(number, frame):
        heard.append(number)
        time.sleep(0.3)  # long enough for a second one to come
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    {command}

try:
    code = run_watched(command)
except Death as death:
    print(death.sentence('ax650'), flush=True)
    sys.exit(3)
sys.exit(code)
"""
WAITING = """
    print('ready', flush=True)
    end = time.monotonic() + 30
    while not heard and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(1)
    return 100 + 10 * len(heard) + heard[0]
"""


def start(command):
    return subprocess.Popen(
        [sys.executable, '-c', PROGRAM.replace('{command}', command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def run():
    def whole(command):
        process = start(command)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    return whole


def test_the_childs_exit_code_is_the_commands(run):
    assert run('return 7') == (7, '')


@pytest.mark.parametrize('name', ['SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGKILL'])
def test_a_death_is_told_in_a_sentence(run, name):
    code, out = run(f'os.kill(os.getpid(), signal.{name})')
    assert code == 3
    assert out.startswith(f'the process with the model was ended by {name} (')
    assert ('dmesg' in out) is (name == 'SIGKILL')


def test_a_crash_in_the_end_of_a_process_does_not_take_back_what_was_done(run):
    code, out = run("__import__('atexit').register(os.abort); return 4")
    assert (code, out) == (4, '')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('send', [os.kill, os.killpg], ids=['kill', 'killpg'])
def test_a_signal_reaches_the_command_once_whoever_it_was_sent_to(send, number):
    """`kill` sends it to the process that waits, a terminal and systemd to both."""
    process = start(WAITING)
    try:
        assert process.stdout.readline() == 'ready\n'
        send(process.pid, number)
        assert process.wait(60) == 110 + number
    finally:
        process.kill()
        process.stdout.close()


def test_the_command_ends_with_the_process_that_waits_for_it():
    process = start(WAITING)
    try:
        assert process.stdout.readline() == 'ready\n'
        process.kill()
        process.wait(60)
        # The pipe ends when the child has gone, too.
        assert process.stdout.read() == ''
    finally:
        process.stdout.close()
