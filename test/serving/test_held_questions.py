"""Questions that wait for a model end and are asked as if it had been loaded all the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import BusyError, Priority, Question, SteadyClock
from edge_vlm_ros.scheduling import (
    Ended,
    Ending,
    QuestionAsked,
    QueuePolicy,
    Rejected,
    Scheduler,
    SchedulerSettings,
)
from edge_vlm_ros.serving.process.held_questions import to_ask
from edge_vlm_ros.serving.process.open_questions import OpenQuestions
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.stream import AnswerStream

MAX_WAITING = 2
POLICIES = [QueuePolicy.REJECT, QueuePolicy.QUEUE, QueuePolicy.PREEMPT]


def of_a_loaded_model(policy, priorities):
    """Return how questions end that come before any work is done, and who is left, by turn."""
    scheduler = Scheduler(SchedulerSettings(max_waiting=MAX_WAITING, policy=policy))
    ends = {}
    for number, priority in enumerate(priorities):
        for notice in scheduler.handle(QuestionAsked(str(number), priority=priority)):
            if isinstance(notice, Rejected):
                ends[notice.request_id] = 'BUSY'
            elif isinstance(notice, Ended):
                assert notice.ending is Ending.PREEMPTED
                ends[notice.request_id] = 'PREEMPTED'
    return ends, scheduler.request_ids


def of_one_that_loads(policy, priorities):
    """Likewise, where they wait for the model."""
    ends, held = {}, OpenQuestions()
    settings = ServingSettings(max_waiting=MAX_WAITING, queue_policy=policy)

    def end(chunk):
        ends[chunk.request_id] = chunk.answer.error_code.name

    for number, priority in enumerate(priorities):
        question = Question('What?', str(number), priority=priority)
        try:
            end_other = held.make_room(question, settings, 1)
        except BusyError:
            ends[question.request_id] = 'BUSY'
            continue
        stream = AnswerStream(
            question.request_id, clock=SteadyClock(), cancel=lambda _: 0, on_chunk=end
        )
        held.hold(question, stream, 1)
        if end_other is not None:
            end_other()
    scheduler = Scheduler(SchedulerSettings(max_waiting=MAX_WAITING, policy=policy))
    for question in to_ask(held.give(), policy):
        asked = QuestionAsked(
            question.request_id, priority=question.priority, preempts=question.preempts
        )
        assert not scheduler.handle(asked), 'nothing more ends when they are asked'
    return ends, scheduler.request_ids


@pytest.mark.parametrize('policy', POLICIES)
@given(priorities=st.lists(st.sampled_from(Priority), max_size=12))
def test_they_end_as_on_a_loaded_model_and_are_left_in_the_same_turn(policy, priorities):
    assert of_one_that_loads(policy, priorities) == of_a_loaded_model(policy, priorities)
