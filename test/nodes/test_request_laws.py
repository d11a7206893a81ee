"""Admission as a state machine: whoever comes, in whatever order they end, each ends once."""

from __future__ import annotations

from collections import Counter

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from hypothesis import settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from rclpy.task import Future  # noqa: E402
from support.clock import ManualClock  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    CancelledError,
    ErrorCode,
    FinishReason,
    Priority,
    Question,
)
from edge_vlm_ros.nodes.admission import Admitted  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.requests import ON_THEIR_WAY, OpenRequest, OpenRequests  # noqa: E402
from edge_vlm_ros.scheduling import QueuePolicy  # noqa: E402
from edge_vlm_ros.serving import AnswerStream  # noqa: E402

NAMES = st.sampled_from('abcdef')


class RequestMachine(RuleBasedStateMachine):
    """Plays callers, cameras, the model process and the node's own ends."""

    @initialize(limit=st.integers(1, 4), policy=st.sampled_from(QueuePolicy))
    def begin(self, limit, policy):
        self.chunks, self.answers = [], []
        self.clock = ManualClock(1)
        self.limit = {
            QueuePolicy.REJECT: 1,
            QueuePolicy.QUEUE: limit,
        }.get(policy, limit + ON_THEIR_WAY)
        self.requests = OpenRequests(
            self, lambda: None, lambda: None, limit=limit, policy=policy.value, clock=self.clock
        )
        self.open, self.all, self.old = {}, [], []
        self.refused = Counter()

    def publish_chunk(self, message):
        self.chunks.append(message)

    def publish_answer(self, message, question=None):
        self.answers.append(message)

    @rule(name=NAMES, priority=st.sampled_from(Priority))
    def come(self, name, priority):
        self.requests.came()
        facts = RequestFacts(name)
        try:
            self.requests.check_room(name)
        except BadRequestError as error:
            self.requests.refuse(facts, error)
            is_twin = error.code is ErrorCode.DUPLICATE_REQUEST
            assert is_twin == (name in self.open)
            return
        except BusyError as error:
            assert len(self.open) >= self.limit
            self.requests.refuse(facts, error)
            self.refused[name] += 1
            return
        assert name not in self.open
        assert len(self.open) < self.limit
        question = Question('Eh?', name, priority=priority)
        request = OpenRequest(Admitted(None, facts, question, None), Future())
        self.requests.add(request)
        self.open[name] = request
        self.all.append(request)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def ask(self, data):
        request = self.drawn(data)
        if request.stream is None:
            request.stream = AnswerStream(
                request.request_id,
                clock=self.clock,
                cancel=lambda _: 0,
                on_chunk=self.requests.on_chunk,
            )

    @precondition(lambda self: self.open)
    @rule(data=st.data(), text=st.text('ab ', max_size=3))
    def say(self, data, text):
        stream = self.drawn(data).stream
        if stream is not None:
            self.clock.advance(1.0)
            assert stream.push(text)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), code=st.sampled_from([0, 302, 300, 500]))
    def end(self, data, code):
        request = self.drawn(data)
        if request.stream is None:
            return
        name, error = request.request_id, ErrorCode(code)
        reason = FinishReason.STOP if not code else FinishReason.ERROR
        assert request.stream.finish(
            lambda text: Answer(
                name, text, reason, error_code=error, message='' if not code else '!'
            )
        )
        self.over(name)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fail(self, data):
        request = self.drawn(data)
        assert self.requests.fail(request, CancelledError('the node ends it'))
        self.over(request.request_id)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def too_late(self, data):
        """Whatever comes after the end changes nothing, also where the id is used again."""
        request = data.draw(st.sampled_from(self.old))
        number = len(self.chunks)
        assert not self.requests.fail(request, CancelledError('again'))
        if request.stream is not None:
            assert not request.stream.push('late')
            assert not request.stream.relay(AnswerChunk(request.request_id, 9, 'late'))
        assert len(self.chunks) == number

    def drawn(self, data):
        return self.open[data.draw(st.sampled_from(sorted(self.open)))]

    def over(self, name):
        self.old.append(self.open.pop(name))

    @invariant()
    def each_ends_once(self):
        if not hasattr(self, 'requests'):
            return
        assert sorted(r.request_id for r in self.requests.matching()) == sorted(self.open)
        assert sorted(self.requests.by_turn()) == sorted(self.open)
        assert [r.reply.done() for r in self.open.values()] == [False] * len(self.open)
        assert all(r.reply.done() for r in self.old)
        finals = Counter(chunk.request_id for chunk in self.chunks if chunk.done)
        assert finals == Counter(r.request_id for r in self.old) + self.refused
        assert len(self.answers) == sum(finals.values())
        counts = self.requests.counts
        ended = counts.answered + counts.failed + counts.cancelled + counts.turned_away
        assert ended >= sum(finals.values())

    @invariant()
    def what_was_said_is_what_is_answered(self):
        if not hasattr(self, 'requests') or not self.old:
            return
        request = self.old[-1]
        answer = request.reply.result()
        if request.stream is not None:
            assert answer.text == ''.join(chunk.delta for chunk in request.stream._chunks)


RequestMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_requests_end_once_whoever_ends_them = RequestMachine.TestCase
