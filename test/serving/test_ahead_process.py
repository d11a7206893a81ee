"""What is wanted ahead crosses to the model process, to the next one too, and never piles up."""

from __future__ import annotations

import os
import signal

import pytest
from support.asker import Asker, model_processes_of

from edge_vlm_ros.core import ErrorCode, Prefix, Readiness, ShownAs

WINDOW = ShownAs.AMONG_OTHERS
ANSWERS = [{'answer': '{means}: {question}'}]


class Reports:
    """A process and its reports of what is ready."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.reports = []
        asker.process.listen_ahead(lambda report: asker._note(self.reports, report))

    def want(self, *frames):
        self.asker.process.want_prefix(Prefix(frames, shown_as=WINDOW))

    def until_ready(self, *frames):
        names = [frame.stamp_ns for frame in frames]
        self.asker.wait_for(
            lambda: self.reports and [k.stamp_ns for k in self.reports[-1].ready] == names
        )

    def ask(self, name, *frames):
        self.asker.ask('Well?', name, frames=frames, shown_as=WINDOW)
        return self.asker.answer(name)


@pytest.fixture
def ahead(ask_process):
    """A process that has been started; its model is perhaps not there yet."""
    return Reports(ask_process(answers=ANSWERS))


def frames_of(frame, *values):
    return [frame(value, stamp_ns=value, received_ns=value) for value in values]


def test_a_wish_made_before_the_model_is_there_is_made_true(ahead, frame):
    one, two = frames_of(frame, 50, 200)
    ahead.want(one, two)
    ahead.until_ready(one, two)
    answer = ahead.ask('a', one, two)
    assert answer.readiness is Readiness.PREFIX
    assert answer.text == '-1.12, 1.48: Well?'
    assert ahead.ask('b', two, one).text == '1.48, -1.12: Well?'


def test_the_next_process_is_told_the_newest_wish(ahead, frame):
    one, two = frames_of(frame, 50, 200)
    ahead.want(one)
    ahead.until_ready(one)
    ahead.want(two)
    ahead.until_ready(two)
    ahead.reports.clear()
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    ahead.until_ready(two)
    assert ahead.ask('a', two).readiness is Readiness.PREFIX


def test_wishes_do_not_pile_up_before_a_process_that_does_not_read(ahead, frame):
    ahead.asker.ready()
    big = [frame(value, stamp_ns=value, received_ns=value, side=1000) for value in range(1, 41)]
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    try:
        for each in big:
            ahead.want(each)
            ahead.asker.process.offer_frames([each])
        assert ahead.asker.process._reader.qsize() < len(big)
    finally:
        os.kill(pid, signal.SIGCONT)
    ahead.until_ready(big[-1])


def test_frames_offered_to_a_process_are_encoded_there(ahead, frame):
    (one,) = frames_of(frame, 50)
    ahead.asker.ready()
    ahead.asker.process.offer_frames([one], WINDOW)
    ahead.asker.wait_for(lambda: ahead.reports and ahead.reports[-1].encodes == 1)
    answer = ahead.ask('a', one)
    assert answer.readiness is Readiness.ENCODED
    assert answer.timings.encode_s == 0.0


def test_a_chip_that_dies_over_a_wish_costs_no_question(ask_process, frame):
    """Nor the next process its life. The first encodes are those of the start itself."""
    faults = [{'at': 'encode', 'kind': 'segfault', 'after': 2, 'times': 1}]
    ahead = Reports(ask_process(answers=ANSWERS, faults=faults))
    (one,) = frames_of(frame, 50)
    ahead.asker.ready()
    ahead.want(one)
    ahead.asker.wait_for(lambda: ahead.reports and ahead.reports[-1].problem)
    assert 'SIGSEGV' in ahead.reports[-1].problem
    assert ahead.reports[-1].failures == 1
    assert ahead.ask('a').error_code is ErrorCode.NONE
    assert ahead.asker.process.state.restarts == 1
