"""A server, then the chip, and the other way round: who answers, and that somebody does, once."""

from __future__ import annotations

import threading
import time

import pytest
from serving.conftest import make_frame
from support.clock import ManualClock
from support.moody_backend import MoodyBackend, OutspokenBackend
from support.patience import Patience

from edge_vlm_ros.core import (
    BadRequestError,
    BusyError,
    DeviceError,
    ErrorCode,
    FinishReason,
    NotReadyError,
    PromptTooLongError,
    Question,
)
from edge_vlm_ros.serving import ServingSettings
from edge_vlm_ros.serving.circuit import Circuit
from edge_vlm_ros.serving.dialogues import Dialogues
from edge_vlm_ros.serving.fallback import FallbackPipeline
from edge_vlm_ros.serving.handover import FallbackSettings, Order

ENDLESS = 'a long answer, a very long one'
SOON = FallbackSettings(first_word_s=0.1)
LONG = FallbackSettings(first_word_s=3600.0)
LOCAL_FIRST = FallbackSettings(Order.LOCAL_FIRST, first_word_s=0.1)


class Pair:
    """Two backends and the fallback around them."""

    def __init__(self, options, kind=MoodyBackend, **more):
        self.remote = kind('large', 'remote')
        self.local = MoodyBackend('small', 'cpu')
        self.both = FallbackPipeline(self.remote, self.local, options, **more)

    def answer(self, text='Well?', **more):
        return self.both.ask(Question(text, **more)).answer(60)


@pytest.fixture
def pair():
    """Open two with a fallback around them; closed after the test."""
    opened = []

    def make(options=LONG, kind=MoodyBackend, **more):
        opened.append(Pair(options, kind, **more))
        return opened[-1]

    yield make
    for each in opened:
        each.both.close()


def until(condition):
    patience = Patience(30)
    while not condition():
        assert not patience.is_over()
        patience.look()


def who(answer):
    return answer.model, answer.chip


def test_a_server_that_answers_is_the_one_that_answers(pair):
    two = pair()
    answer = two.answer()
    assert answer.success
    assert (who(answer), answer.message) == (('large', 'remote'), '')
    assert two.local.asked == []
    assert (two.both.info.model, two.both.standing.outage) == ('large', '')


def test_the_chip_answers_where_no_server_does_in_time_and_says_so(pair):
    two = pair(SOON)
    two.remote.is_mute = True
    seen = []
    stream = two.both.ask(Question('Well?', 'a', frames=(make_frame(),)), seen.append)
    answer = stream.answer(60)
    assert (who(answer), answer.text) == (('small', 'cpu'), '1 frames: Well? ')
    assert answer.message.startswith('large on remote: no word of an answer within ')
    assert [chunk.sequence for chunk in seen] == list(range(len(seen)))
    assert [chunk.done for chunk in seen] == [False] * (len(seen) - 1) + [True]
    assert ''.join(chunk.delta for chunk in seen) == answer.text


def test_a_server_may_take_half_of_what_is_left_until_the_deadline(pair):
    two = pair(LONG)
    two.remote.is_mute = True
    deadline_ns = time.monotonic_ns() + 20_000_000_000
    settings, now_ns = LONG, deadline_ns - 8_000_000_000
    question = Question('Well?', deadline_ns=deadline_ns)
    assert settings.due_ns(question, now_ns) == deadline_ns - 4_000_000_000
    soon_ns = time.monotonic_ns() + 1_000_000_000
    answer = two.answer(deadline_ns=soon_ns)
    assert answer.chip == 'cpu'
    assert len(two.local.asked) == 1


@pytest.mark.parametrize(
    'error',
    [
        DeviceError('the server fell over'),
        BusyError('all slots are taken'),
        NotReadyError('still loading'),
    ],
)
def test_the_chip_answers_where_a_server_fails_before_its_first_word(pair, error):
    two = pair()
    two.remote.error = error
    answer = two.answer()
    assert answer.success
    assert (who(answer), answer.message) == (
        ('small', 'cpu'),
        f'large on remote: {error.message}',
    )


def test_what_broke_off_after_a_word_is_an_error_with_that_word(pair):
    two = pair()
    two.remote.breaks = True
    answer = two.answer()
    assert (answer.error_code, answer.text) == (ErrorCode.DEVICE, 'Well, ')
    assert who(answer) == ('large', 'remote')
    assert two.local.asked == []


@pytest.mark.parametrize('error', [BadRequestError('nonsense'), PromptTooLongError('too long')])
def test_what_the_caller_did_wrong_is_asked_nobody_else(pair, error):
    two = pair()
    two.remote.error = error
    assert two.answer().error_code is error.code
    assert two.local.asked == []


def test_where_both_fail_the_answer_names_both(pair):
    two = pair()
    two.remote.error = DeviceError('the server fell over')
    two.local.error = DeviceError('the chip is hot')
    answer = two.answer()
    assert answer.error_code is ErrorCode.DEVICE
    assert answer.message == 'large on remote: the server fell over; the chip is hot'
    assert who(answer) == ('small', 'cpu')


def test_after_a_failure_questions_go_to_the_chip_at_once_and_come_back_later(pair):
    clock = ManualClock(time.monotonic_ns())
    two = pair(circuit=Circuit(clock, first_s=5.0, longest_s=8.0))
    two.remote.error = DeviceError('the server fell over')
    two.answer()
    assert two.answer().message == ''
    assert len(two.remote.asked) == 1
    assert (two.both.info.model, two.both.standing.is_spare) == ('small', True)
    assert two.both.standing.outage == 'the server fell over'
    assert two.both.standing.since_ns > 0
    clock.advance(6.0)
    since_ns = two.both.standing.since_ns
    assert two.answer().chip == 'cpu'
    assert (len(two.remote.asked), two.both.standing.since_ns) == (2, since_ns)
    clock.advance(6.0)
    two.answer()
    assert len(two.remote.asked) == 2, 'the second pause is longer'
    two.remote.error = None
    clock.advance(3.0)
    assert two.answer().chip == 'remote'
    assert two.both.standing.outage == ''
    assert two.answer().chip == 'remote'


def test_while_one_question_tries_a_server_again_others_do_not_wait_for_it(pair):
    clock = ManualClock(time.monotonic_ns())
    two = pair(circuit=Circuit(clock, first_s=5.0))
    two.remote.error = DeviceError('the server fell over')
    two.answer()
    clock.advance(6.0)
    two.remote.error, two.remote.is_mute = None, True
    trying = two.both.ask(Question('Well?', 'trying'))
    assert two.answer().chip == 'cpu'
    trying.cancel()
    assert trying.answer(60).error_code is ErrorCode.CANCELLED


def test_servers_that_say_themselves_that_they_are_down_are_not_asked(pair):
    two = pair(kind=OutspokenBackend)
    told = []
    two.both.listen_standing(told.append)
    until(lambda: told)
    two.remote.turn('a: refused the connection')
    assert (two.answer().chip, two.remote.asked) == ('cpu', [])
    until(lambda: len(told) == 2)
    two.remote.turn('')
    assert two.answer().chip == 'remote'
    until(lambda: len(told) == 3)
    assert [each.outage for each in told] == ['', 'a: refused the connection', '']
    assert [each.info.model for each in told] == ['large', 'small', 'large']
    assert told[0].since_ns == told[2].since_ns == 0 < told[1].since_ns


def test_a_server_that_was_too_slow_is_asked_again_when_it_says_that_it_is_well(pair):
    two = pair(SOON, kind=OutspokenBackend)
    two.remote.is_mute = True
    assert two.answer().chip == 'cpu'
    assert two.both.standing.is_spare
    two.remote.is_mute = False
    two.remote.turn('')
    assert two.answer().chip == 'remote'


def test_a_conversation_goes_over_with_words_and_frames_and_back(pair):
    two = pair(kind=OutspokenBackend)
    shown = (make_frame(10),)
    first = two.answer('one', session_id='s', frames=shown, system_prompt='Be brief.')
    two.answer('two', session_id='s')
    two.remote.turn('gone')
    third = two.answer('three', session_id='s')
    (asked,) = two.local.asked
    assert [(turn.text, turn.answer, turn.frames) for turn in asked.earlier] == [
        ('one', first.text, shown),
        ('two', '0 frames: two ', ()),
    ]
    assert [turn.system_prompt for turn in asked.earlier] == ['Be brief.', '']
    two.answer('four', session_id='s')
    assert two.local.asked[-1].earlier == (), 'the chip was there'
    two.remote.turn('')
    two.answer('five', session_id='s')
    again = two.remote.asked[-1].earlier
    assert [turn.text for turn in again] == ['one', 'two', 'three', 'four']
    assert again[2].answer == third.text
    assert two.both.reset_session('s') == 1
    two.answer('six', session_id='s')
    assert two.remote.asked[-1].earlier == ()


def test_a_conversation_that_one_has_forgotten_is_told_it_again(pair):
    two = pair()
    two.answer('one', session_id='s')
    real = two.remote._answer

    def forgetful(question, stream):
        if question.earlier:
            real(question, stream)
        else:
            two.remote._fail(stream, BadRequestError('who?', ErrorCode.UNKNOWN_SESSION))

    two.remote._answer = forgetful
    answer = two.answer('two', session_id='s', continues_session=True)
    assert answer.success, answer.message
    assert two.answer('?', session_id='t').error_code is ErrorCode.UNKNOWN_SESSION


def test_an_answer_that_failed_is_no_turn(pair):
    two = pair(kind=OutspokenBackend)
    two.answer('one', session_id='s')
    two.remote.breaks = True
    two.answer('two', session_id='s')
    two.remote.turn('gone')
    two.answer('three', session_id='s')
    assert [turn.text for turn in two.local.asked[-1].earlier] == ['one']


@pytest.mark.parametrize('where', ['remote', 'local'])
def test_a_cancel_reaches_whoever_answers(pair, where):
    two = pair(kind=OutspokenBackend)
    if where == 'local':
        two.remote.turn('gone')
    stream = two.both.ask(Question(ENDLESS, 'a'))
    next(iter(stream))
    assert two.both.cancel('nobody') == 0
    assert two.both.cancel('a') == 1
    answer = stream.answer(60)
    assert answer.finish_reason is FinishReason.CANCELLED
    assert answer.chip == ('remote' if where == 'remote' else 'cpu')
    assert two.both.cancel('a') == 0
    assert two.answer(request_id='a').success


def test_a_cancel_while_a_server_is_silent_is_no_reason_to_ask_the_chip(pair):
    two = pair()
    two.remote.is_mute = True
    stream = two.both.ask(Question('Well?', 'a'))
    until(lambda: two.remote.asked)
    assert two.both.cancel() == 1
    assert stream.answer(60).error_code is ErrorCode.CANCELLED
    assert two.local.asked == []
    assert two.both.standing.outage == ''


@pytest.mark.parametrize('where', ['remote', 'local'])
def test_a_deadline_holds_wherever_the_answer_is_made(pair, where):
    two = pair(kind=OutspokenBackend)
    if where == 'local':
        two.remote.turn('gone')
    deadline_ns = time.monotonic_ns() + 300_000_000
    stream = two.both.ask(Question(ENDLESS, deadline_ns=deadline_ns))
    answer = stream.answer(60)
    assert answer.error_code is ErrorCode.DEADLINE
    assert answer.text == ''.join(chunk.delta for chunk in stream)


def test_the_same_request_may_be_asked_again_while_a_server_broods_over_the_last(pair):
    two = pair(SOON)
    two.remote.is_mute = True
    two.remote.cancel = lambda _='': 0  # It does not let go.
    for _ in range(2):
        assert two.answer(request_id='a').chip == 'cpu'
    two.both.ask(Question(ENDLESS, 'b'))
    with pytest.raises(BadRequestError) as raised:
        two.both.ask(Question(ENDLESS, 'b'))
    assert raised.value.code is ErrorCode.DUPLICATE_REQUEST


def test_late_words_of_a_server_that_was_given_up_are_heard_by_nobody(pair):
    two = pair(SOON)
    two.remote.is_mute = True
    two.remote.cancel = lambda _='': 0
    stream = two.both.ask(Question(ENDLESS, 'a'))
    next(iter(stream))
    late = two.remote._streams['a']
    late.push('and another thing')
    two.both.cancel('a')
    answer = stream.answer(60)
    assert 'another thing' not in answer.text
    assert sum(chunk.done for chunk in stream) == 1


def test_many_at_once_each_end_once_whatever_the_server_does(pair):
    two = pair(SOON, circuit=Circuit(ManualClock(1), first_s=0.0, longest_s=0.0))
    counts = {}
    lock = threading.Lock()

    def on_chunk(chunk):
        if chunk.done:
            with lock:
                counts[chunk.request_id] = counts.get(chunk.request_id, 0) + 1

    streams = []
    for number in range(60):
        two.remote.is_mute = number % 3 == 0
        two.remote.error = DeviceError('down') if number % 3 == 1 else None
        streams.append(two.both.ask(Question('Well?', str(number)), on_chunk))
        if number % 5 == 0:
            streams[-1].cancel()
    for stream in streams:
        stream.answer(60)
    until(lambda: len(counts) == 60)
    assert set(counts.values()) == {1}


def test_closing_ends_what_is_asked_wherever_it_is(pair):
    two = pair()
    two.remote.is_mute = True
    silent = two.both.ask(Question('Well?'))
    two.both.close()
    two.both.close()
    assert silent.answer(60).error_code is ErrorCode.CANCELLED
    with pytest.raises(NotReadyError):
        two.both.ask(Question('Well?'))


# --- the chip first ------------------------------------------------------------------------------


def test_a_server_answers_where_the_chip_names_none_of_the_choices(pair):
    two = pair(LOCAL_FIRST)
    two.local.says, two.remote.says = 'Perhaps.', 'Yes.'
    seen = []
    stream = two.both.ask(Question('Open?', choices=('yes', 'no')), seen.append)
    answer = stream.answer(60)
    assert (answer.choice, who(answer)) == ('yes', ('large', 'remote'))
    assert answer.message == "small on cpu: 'Perhaps.' is none of the choices"
    assert 'Perhaps' not in ''.join(chunk.delta for chunk in seen)
    assert two.both.info.model == 'small'


def test_a_choice_of_the_chip_is_the_answer_if_it_is_sure(pair):
    two = pair(FallbackSettings(Order.LOCAL_FIRST, sure_from=0.7))
    two.local.says, two.remote.says = 'No.', 'Yes.'
    two.local.probability = 0.9
    answer = two.answer('Open?', choices=('yes', 'no'))
    assert (answer.choice, answer.chip, answer.message) == ('no', 'cpu', '')
    two.local.probability = 0.6
    answer = two.answer('Open?', choices=('yes', 'no'))
    assert (answer.choice, answer.chip) == ('yes', 'remote')
    assert answer.message == "small on cpu: 'no' has a probability of only 0.60"


@pytest.mark.parametrize('trouble', ['mute', 'error', 'down'])
def test_an_unsure_answer_of_the_chip_stands_where_no_server_gives_a_better(pair, trouble):
    two = pair(LOCAL_FIRST, kind=OutspokenBackend)
    two.local.says = 'Perhaps.'
    two.remote.is_mute = trouble == 'mute'
    two.remote.error = DeviceError('the server fell over') if trouble == 'error' else None
    if trouble == 'down':
        two.remote.turn('gone')
    answer = two.answer('Open?', choices=('yes', 'no'))
    assert answer.success
    assert (answer.text, answer.choice, answer.chip) == ('Perhaps.', '', 'cpu')


def test_free_text_of_the_chip_streams_and_a_server_is_asked_only_where_it_fails(pair):
    two = pair(LOCAL_FIRST)
    assert two.answer().chip == 'cpu'
    assert two.remote.asked == []
    two.local.error = PromptTooLongError('900 tokens, the model takes 512')
    answer = two.answer()
    assert answer.chip == 'remote'
    assert answer.message == 'small on cpu: 900 tokens, the model takes 512'


# --- what is remembered --------------------------------------------------------------------------


def test_dialogues_are_bounded_by_number_age_turns_and_bytes():
    clock = ManualClock(1)
    settings = ServingSettings(
        max_sessions=2, session_ttl_s=10.0, max_session_turns=2, max_session_bytes=1000
    )
    kept = Dialogues(clock, settings)

    def add(name, text='q', **more):
        question = Question(text, session_id=name, **more)
        kept.add(kept.get(name), question, 'a', 'remote')

    for text in ('one', 'two', 'three'):
        add('a', text, system_prompt='Be brief.')
    turns = kept.get('a').turns
    assert [turn.text for turn in turns] == ['two', 'three']
    assert [turn.system_prompt for turn in turns] == ['Be brief.', '']
    add('b')
    add('c')
    assert kept.get('a').turns == ()
    add('b', frames=(make_frame(side=20),))
    assert [len(kept.get(name).turns) for name in 'bc'] == [1, 0], 'too large with the other'
    clock.advance(11)
    assert kept.get('b').turns == ()


def test_a_turn_that_was_asked_before_a_reset_is_none_of_the_new_conversation():
    kept = Dialogues(ManualClock(1), ServingSettings())
    question = Question('q', session_id='a')
    kept.add(kept.get('a'), question, 'a', 'remote')
    before = kept.get('a')
    assert kept.reset('a') == 1
    kept.add(before, question, 'a', 'remote')
    assert kept.get('a').turns == ()
