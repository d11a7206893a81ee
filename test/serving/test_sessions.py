"""Conversations: what is remembered, what is not, and for how long."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from serving.conftest import make_frame
from support.clock import ManualClock
from support.long_answer import long_words

from edge_vlm_ros.core import (
    ErrorCode,
    Question,
    SamplingOptions,
    ShownAs,
    VisionInputs,
)
from edge_vlm_ros.serving import ModelSpec, VlmPipeline
from edge_vlm_ros.serving.conversation import Conversation, SessionStore
from edge_vlm_ros.serving.shown_frames import PreparedFrames, ShownFrames, group_frames

ECHO = {'answers': [{'question': 'images', 'answer': '{images}'}, {'answer': '{means}'}]}


def ask(pipeline, text, session_id='s', **more):
    return pipeline.ask(Question(text, session_id=session_id, **more)).answer(10)


def test_a_session_without_new_frames_talks_about_those_shown_before(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    shown = (frame(10), frame(200, stamp_ns=2))
    first = ask(pipeline, 'How bright?', frames=shown)
    second = ask(pipeline, 'And again?')
    assert second.text == first.text
    assert [ref.stamp_ns for ref in second.frames] == [1, 2]
    assert second.timings.cached_prompt_tokens >= first.timings.prompt_tokens
    assert second.timings.encode_s == 0


def test_new_frames_join_those_shown_before(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    ask(pipeline, 'How bright?', frames=(frame(10),))
    answer = ask(pipeline, 'How many images?', frames=(frame(200, stamp_ns=2),))
    assert answer.text == '2'
    assert [ref.stamp_ns for ref in answer.frames] == [1, 2]


def test_a_frame_shown_before_is_not_shown_again(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    ask(pipeline, 'How bright?', frames=(frame(10),))
    assert ask(pipeline, 'How many images?', frames=(frame(10),)).text == '1'


def test_two_sessions_and_questions_without_one_never_leak(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    dark, light = (ask(pipeline, 'How bright?', n, frames=(frame(v),)).text for n, v in DARK_LIGHT)
    assert dark != light
    for _ in range(2):
        assert ask(pipeline, 'Still?', 'a').text == dark
        assert ask(pipeline, 'Still?', 'b').text == light
        assert ask(pipeline, 'How many images?', '').text == '0'


DARK_LIGHT = (('a', 10), ('b', 200))


def test_a_reset_session_begins_anew(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    ask(pipeline, 'How bright?', frames=(frame(10),))
    assert pipeline.reset_session('s') == 1
    assert pipeline.reset_session('s') == 0
    assert ask(pipeline, 'How many images?').text == '0'


def test_all_sessions_can_be_reset(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    for name, value in DARK_LIGHT:
        ask(pipeline, 'How bright?', name, frames=(frame(value),))
    assert pipeline.reset_session() == 2
    assert ask(pipeline, 'How many images?', 'a').text == '0'


@pytest.mark.parametrize('trouble', ['cancel', 'error', 'reset'])
def test_a_turn_that_came_to_nothing_leaves_no_trace(open_scripted, frame, trouble):
    def talk(is_disturbed):
        pipeline = open_scripted(
            answers=[{'question': 'long', 'answer': long_words(100)}, *ECHO['answers']],
            faults=[{'at': 'decode', 'question': 'crash', 'token': 2}],
            latency={'decode_s': 0.001},
        )
        ask(pipeline, 'How bright?', frames=(frame(10),))
        if is_disturbed:
            text = 'a crash' if trouble == 'error' else 'a long story'
            question = Question(text, session_id='s', frames=(frame(99, stamp_ns=9),))
            stream = pipeline.ask(question)
            next(iter(stream))
            if trouble == 'cancel':
                stream.cancel()
            if trouble == 'reset':
                pipeline.reset_session('s')
            code = stream.answer(10).error_code
            wanted = {'cancel': ErrorCode.CANCELLED, 'error': ErrorCode.DEVICE}
            assert code is wanted.get(trouble, ErrorCode.NONE)
        return ask(pipeline, 'How many images?')

    plain, disturbed = talk(is_disturbed=False), talk(is_disturbed=True)
    if trouble == 'reset':
        assert disturbed.text == '0', 'a turn that runs meanwhile does not bring the session back'
    else:
        assert disturbed.text == plain.text == '1'
        assert disturbed.timings.prompt_tokens == plain.timings.prompt_tokens


def test_features_given_up_since_are_made_again(open_scripted, frame):
    from edge_vlm_ros.serving import ServingSettings

    pipeline = open_scripted(ServingSettings(max_cached_frames=1), **ECHO)
    first = ask(pipeline, 'How bright?', frames=(frame(10), frame(200, stamp_ns=2)))
    ask(pipeline, 'How bright?', '', frames=(frame(77, stamp_ns=3),))
    again = ask(pipeline, 'How bright?')
    assert again.text == first.text
    assert again.timings.cached_prompt_tokens < 10
    assert again.timings.encode_s > 0


def test_a_question_that_must_go_on_with_a_lost_session_is_refused(open_scripted, frame):
    from edge_vlm_ros.serving import ServingSettings

    pipeline = open_scripted(ServingSettings(max_sessions=2), **ECHO)
    ask(pipeline, 'How bright?', 'a', frames=(frame(10),))
    assert ask(pipeline, 'How many images?', 'a', continues_session=True).text == '1'
    for name in ('b', 'c'):
        ask(pipeline, 'How bright?', name, frames=(frame(200),))
    lost = ask(pipeline, 'How many images?', 'a', continues_session=True)
    assert lost.error_code is ErrorCode.UNKNOWN_SESSION
    assert "'a'" in lost.message
    assert 'ask again' in lost.message
    assert lost.text == ''
    # Refused, it takes no other conversation's room.
    for name in ('b', 'c'):
        assert ask(pipeline, 'How many images?', name, continues_session=True).text == '1'
    assert ask(pipeline, 'How many images?', 'a', frames=(frame(10),)).text == '1'
    nameless = ask(pipeline, 'How many images?', '', continues_session=True)
    assert nameless.error_code is ErrorCode.UNKNOWN_SESSION


def test_a_session_whose_first_turn_failed_is_not_one_to_go_on_with(open_scripted, frame):
    pipeline = open_scripted(faults=[{'at': 'prefill', 'question': 'crash'}], **ECHO)
    crash = ask(pipeline, 'crash', frames=(frame(10),))
    assert crash.error_code is ErrorCode.DEVICE
    lost = ask(pipeline, 'How many images?', continues_session=True)
    assert lost.error_code is ErrorCode.UNKNOWN_SESSION


def test_the_system_prompt_of_a_session_stays(open_scripted):
    pipeline = open_scripted()
    assert ask(pipeline, 'Hello', system_prompt='Be brief.').success
    assert ask(pipeline, 'Hello', system_prompt='Be brief.').success
    assert ask(pipeline, 'Hello').success
    refused = ask(pipeline, 'Hello', system_prompt='Be long.')
    assert refused.error_code is ErrorCode.BAD_REQUEST
    assert 'reset' in refused.message


def test_a_session_that_fills_the_context_forgets_its_oldest_turns_and_says_so(open_scripted):
    pipeline = open_scripted(answers=[{'answer': long_words(12)}], limits={'context_tokens': 400})
    answers = [ask(pipeline, f'Question {n}') for n in range(12)]
    assert {answer.error_code for answer in answers} == {ErrorCode.NONE}
    assert {answer.text for answer in answers} == {long_words(12)}, 'none is cut'
    told = [n for n, answer in enumerate(answers) if 'forgotten' in answer.message]
    assert len(told) > 1
    assert min(later - earlier for earlier, later in pairwise(told)) > 1, 'not in every turn'
    for number in told:
        assert answers[number].timings.cached_prompt_tokens < 40
        assert answers[number - 1].timings.cached_prompt_tokens > 100


def test_the_frames_asked_about_stay_when_their_turn_is_forgotten(open_scripted, frame):
    pipeline = open_scripted(
        answers=[{'question': 'Talk', 'answer': long_words(12)}, *ECHO['answers']],
        limits={'context_tokens': 400},
    )
    ask(pipeline, 'How bright?', frames=(frame(10),))
    shown = ask(pipeline, 'How bright?', frames=(frame(200, stamp_ns=2),)).text.partition(', ')[2]
    assert shown
    messages = [ask(pipeline, f'Talk {n}').message for n in range(8)]
    assert sum('forgotten' in message for message in messages) > 1
    answer = ask(pipeline, 'How bright?')
    assert answer.text == shown
    assert [ref.stamp_ns for ref in answer.frames] == [2]


def test_a_conversation_keeps_so_many_turns(open_scripted, frame):
    from edge_vlm_ros.serving import ServingSettings

    pipeline = open_scripted(ServingSettings(max_session_turns=4), **ECHO)
    shown = [ask(pipeline, f'images {n}', frames=(frame(n, stamp_ns=n),)) for n in range(1, 9)]
    assert [answer.text for answer in shown] == ['1', '2', '3', '4', '3', '4', '3', '4']
    assert 'the oldest 2 of 4 turns' in shown[4].message
    assert shown[5].message == ''


def test_a_shortened_conversation_is_the_one_that_never_had_the_forgotten_turns(
    open_scripted, frame
):
    from edge_vlm_ros.serving import ServingSettings

    short = open_scripted(ServingSettings(max_session_turns=2), **ECHO)
    fresh = open_scripted(**ECHO)
    frames = [(frame(10 * n, stamp_ns=n),) for n in range(1, 4)]
    for number in range(3):
        last = ask(short, f'How bright {number}?', frames=frames[number])
    expected = ask(fresh, 'How bright 2?', frames=frames[2])
    assert last.text == expected.text
    assert last.timings.prompt_tokens == expected.timings.prompt_tokens


def test_a_conversation_that_begins_says_so_and_one_that_goes_on_does_not(open_scripted, frame):
    pipeline = open_scripted(**ECHO)
    messages = [ask(pipeline, 'How bright?', frames=(frame(10),)).message for _ in range(2)]
    assert messages == ["the conversation 's' begins here", '']
    pipeline.reset_session('s')
    assert 'begins here' in ask(pipeline, 'How bright?', frames=(frame(10),)).message
    assert ask(pipeline, 'How bright?', '', frames=(frame(10),)).message == ''


class TalkMachine(RuleBasedStateMachine):
    """Conversations beside each other, turns that are cancelled: each is as if it were alone."""

    SCRIPT: ClassVar = {
        'answers': [
            {'question': 'long', 'answer': long_words(100)},
            {'answer': '{images}: {means}'},
        ],
        'latency': {'decode_s': 0.0005},
    }

    @initialize()
    def begin(self):
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name) / 'script.yaml'
        path.write_text(yaml.safe_dump(self.SCRIPT))
        self.pipeline = VlmPipeline.open(ModelSpec('scripted', str(path)))
        self.shown = {'a': [], 'b': []}

    @rule(name=st.sampled_from('ab'), stamps=st.lists(st.integers(1, 5), max_size=3, unique=True))
    def ask(self, name, stamps):
        shown = self.shown[name]
        shown += [stamp_ns for stamp_ns in sorted(stamps) if stamp_ns not in shown]
        answer = self.answer(name, stamps)
        assert [ref.stamp_ns for ref in answer.frames] == shown
        assert answer.text == self.answer('', shown).text, 'nothing but its own frames'

    def answer(self, name, stamps):
        shown = sorted(stamps) if name else stamps
        frames = tuple(make_frame(40 * n, stamp_ns=n, camera='') for n in shown)
        question = Question(
            'How bright?', session_id=name, frames=frames, shown_as=ShownAs.AMONG_OTHERS
        )
        return self.pipeline.ask(question).answer(10)

    @rule(name=st.sampled_from('ab'), stamp_ns=st.integers(6, 9), text=st.booleans())
    def cancel(self, name, stamp_ns, text):
        question = Question('long', session_id=name, frames=(make_frame(9, stamp_ns=stamp_ns),))
        stream = self.pipeline.ask(question)
        if text:
            next(iter(stream))
        stream.cancel()
        assert stream.answer(10).error_code is ErrorCode.CANCELLED

    @rule(name=st.sampled_from('ab'))
    def reset(self, name):
        self.pipeline.reset_session(name)
        self.shown[name] = []

    def teardown(self):
        if hasattr(self, 'pipeline'):
            self.pipeline.close()
            self.folder.cleanup()


TalkMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
test_conversations_never_leak_and_a_cancelled_turn_leaves_no_trace = TalkMachine.TestCase


def test_an_answer_cut_short_goes_on_in_the_next_turn(open_scripted):
    pipeline = open_scripted(answers=[{'answer': 'abcdef'}])
    short = ask(pipeline, 'Say', sampling=SamplingOptions(max_tokens=2))
    assert short.text == 'ab'
    assert ask(pipeline, 'Say').text == 'abcdef'


def shown(frame):
    (group,) = group_frames([frame])
    inputs = VisionInputs(np.zeros(0, np.float32), (1, 1, 1), 4)
    return ShownFrames(group, PreparedFrames(inputs, ((8, 8),)))


def with_frame(frame):
    return Conversation(frames=(shown(frame),))


def test_the_store_keeps_its_number_of_sessions():
    store = SessionStore(ManualClock(), max_sessions=2)
    for name in 'abc':
        before = store.get(name)
        store.put(name, before, Conversation(system_prompt=name))
    assert [store.get(name).system_prompt for name in 'bca'] == ['b', 'c', '']


def test_the_store_forgets_what_is_not_used():
    clock = ManualClock()
    store = SessionStore(clock, ttl_s=10)
    store.put('a', store.get('a'), Conversation(system_prompt='a'))
    clock.advance(9)
    assert store.get('a').system_prompt == 'a'
    clock.advance(9)
    assert store.get('a').system_prompt == 'a'
    clock.advance(11)
    assert len(store) == 0
    assert store.get('a').system_prompt == ''


def test_the_store_keeps_its_bytes(frame):
    stored = frame(1, side=10)
    store = SessionStore(ManualClock(), max_bytes=2 * stored.nbytes)
    for name in 'abc':
        store.put(name, store.get(name), with_frame(stored))
    assert [len(store.get(name).frames) for name in 'cba'] == [1, 1, 0]


def test_no_session_is_kept_under_the_empty_name():
    store = SessionStore(ManualClock())
    before = store.get('')
    assert not store.put('', before, Conversation(system_prompt='x'))
    assert len(store) == 0
    assert store.get('') == Conversation()


def test_a_turn_from_before_a_reset_does_not_come_back_into_the_new_session():
    store = SessionStore(ManualClock())
    store.put('a', store.get('a'), Conversation(system_prompt='old'))
    before = store.get('a')
    store.reset('a')
    store.put('a', store.get('a'), Conversation(system_prompt='new'))
    assert not store.put('a', before, Conversation(system_prompt='older'))
    assert store.get('a').system_prompt == 'new'
