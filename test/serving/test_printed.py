"""What a model process prints and logs becomes lines of the parent's log, each once."""

from __future__ import annotations

import logging
import os

import pytest
from support.asker import HANG_S
from support.patience import Patience

from edge_vlm_ros.serving.process import launcher
from edge_vlm_ros.serving.process.printed import Dam, LogLine, PrintedLines, log_line

SECOND_NS = 10**9


@pytest.fixture
def pipe():
    """A printed output and the end that is written to."""
    reading, writing = os.pipe()
    output = PrintedLines(reading, 'stdout', logging.DEBUG)
    yield output, writing
    output.close()


def texts(lines):
    return [line.text for line in lines]


def test_lines_are_whole_however_they_come(pipe):
    output, writing = pipe
    assert output.read() == []
    os.write(writing, b'half a ')
    assert output.read() == []
    os.write(writing, 'line 门\n\n  \r\nprogress 1\rprogress 2\rlast'.encode())
    assert texts(output.read()) == ['half a line 门', 'progress 1', 'progress 2']
    os.close(writing)
    assert texts(output.read()) == ['last']
    assert output.is_over


def test_a_line_without_end_is_cut_and_kept_nowhere(pipe):
    output, writing = pipe
    for _ in range(10):
        os.write(writing, b'x' * 50_000)
        (line,) = output.read()
        assert len(line.text) == 2000
    os.close(writing)


def test_bytes_that_are_no_text_are_shown_and_control_codes_are_not(pipe):
    output, writing = pipe
    os.write(writing, b'\xff\xfe \x1b[31mred\x07\n')
    os.close(writing)
    got = []
    Dam(got.append).put(*output.read(), 0)
    assert texts(got) == ['\ufffd\ufffd ?[31mred?']


def test_a_flood_is_bounded_and_says_how_much_was_left_out():
    got = []
    dam = Dam(got.append, per_s=10, burst=5)
    for number in range(1000):
        dam.put(LogLine(logging.INFO, 'a', f'{number}'), SECOND_NS)
    assert texts(got) == ['0', '1', '2', '3', '4']
    dam.put(LogLine(logging.INFO, 'a', 'later'), 2 * SECOND_NS)
    assert texts(got[5:]) == ['995 more lines in a short time are left out', 'later']
    for number in range(100):
        dam.put(LogLine(logging.INFO, 'a', f'{number}'), 2 * SECOND_NS)
    dam.end()
    assert got[-1].text.startswith('9')


def test_lines_go_to_pythons_logging_where_nobody_else_wants_them(caplog):
    with caplog.at_level(logging.DEBUG):
        log_line(LogLine(logging.WARNING, 'edge_vlm_ros.engines', '100 % sure'))
        log_line(LogLine(logging.DEBUG, 'stdout', 'printed'))
    assert [(r.name.rpartition('.')[2], r.getMessage()) for r in caplog.records] == [
        ('engines', '100 % sure'),
        ('stdout', 'printed'),
    ]


PRINTS = """
import ctypes, logging, os, warnings
libc = ctypes.CDLL(None)
libc.printf(b'printed by C\\n')
print('printed by Python')
os.write(2, b'written to 2\\n')
os.system('echo printed by a child')
from edge_vlm_ros.serving import backend
open_it = backend.open_backend

def opened(*args, **more):
    logging.getLogger('vendor').warning('a warning of %s', 'theirs')
    logging.getLogger('vendor').info('chatter')
    warnings.warn('deprecated')
    libc.printf(b'printed while it loads\\n')
    return open_it(*args, **more)

backend.open_backend = opened
main(int"""


@pytest.fixture
def printing(monkeypatch):
    """Have model processes run a program before they serve."""

    def run(program):
        monkeypatch.setattr(launcher, '_BOOT', launcher._BOOT.replace('main(int', program, 1))

    return run


def test_each_line_of_the_process_comes_once_with_its_level(ask_process, printing, capfd):
    printing(PRINTS)
    asker = ask_process(options={'log_level': logging.DEBUG}).ready()
    assert asker.answer(asker.ask('Hello', 'a')).success
    asker.process.close()
    found = [(line.level, line.name, line.text) for line in asker.lines]
    for expected in (
        (logging.DEBUG, 'stdout', 'printed by C'),
        (logging.DEBUG, 'stdout', 'printed by Python'),
        (logging.DEBUG, 'stdout', 'printed by a child'),
        (logging.DEBUG, 'stdout', 'printed while it loads'),
        (logging.INFO, 'stderr', 'written to 2'),
        (logging.WARNING, 'vendor', 'a warning of theirs'),
        (logging.INFO, 'vendor', 'chatter'),
    ):
        assert found.count(expected) == 1, (expected, found)
    assert sum('deprecated' in text for _, _, text in found) == 1
    assert capfd.readouterr() == ('', ''), 'the standard output is not theirs'


def test_what_is_below_the_level_is_left_out(ask_process, printing):
    printing(PRINTS)
    asker = ask_process(options={'log_level': logging.WARNING}).ready()
    asker.process.close()
    assert {line.level for line in asker.lines} == {logging.WARNING}


def test_last_words_are_logged(ask_process, printing):
    printing("""
import os
os.write(2, b'terminate called: no newline at the end')
os.abort()
main(int""")
    asker = ask_process(options={'log_level': logging.INFO})
    asker.wait_for(lambda: asker.process.state.restarts)
    asker.wait_for(lambda: any('no newline at the end' in line.text for line in asker.lines))
    assert 'SIGABRT' in asker.process.state.message


def test_a_process_that_prints_without_end_is_served_and_bounded(ask_process, printing):
    printing("""
import threading, os
def flood():
    while True:
        os.write(1, b'spam spam spam\\n' * 500)
threading.Thread(target=flood, daemon=True).start()
main(int""")
    asker = ask_process(options={'log_level': logging.DEBUG}).ready()
    for name in 'abc':
        assert asker.answer(asker.ask('Hello', name)).success
    patience = Patience(HANG_S)
    while not any('are left out' in line.text for line in asker.lines):
        assert not patience.is_over()
        patience.look()
    asker.process.close()
    assert len(asker.lines) < 100_000
