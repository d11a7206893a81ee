"""Conversations that began elsewhere: a model that is told their words and frames goes on."""

from __future__ import annotations

import pytest
from serving.conftest import make_frame

from edge_vlm_ros.core import (
    CompressedImage,
    EarlierTurn,
    ErrorCode,
    FrameSource,
    Question,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.serving import VlmPipeline

ECHO = {'answers': [{'question': 'images', 'answer': '{images}'}, {'answer': '{means}'}]}
DARK, LIGHT = make_frame(10), make_frame(200, stamp_ns=2)


def turn(text, answer, *frames, **more):
    return EarlierTurn(text, answer, tuple(frames), **more)


def ask(pipeline, text, session_id='s', **more):
    answer = pipeline.ask(Question(text, session_id=session_id, **more)).answer(60)
    assert answer.success, answer.message
    return answer


def test_a_real_model_goes_on_with_what_it_was_told_as_with_what_it_said(tiny_spec):
    sampling = SamplingOptions(max_tokens=12)
    earlier = (
        turn('What is there?', 'A ball.', DARK, system_prompt='Be brief.'),
        turn('And now?', 'A box.', LIGHT),
    )
    with VlmPipeline.open(tiny_spec) as pipeline:
        answer = ask(pipeline, 'Is it the same?', earlier=earlier, sampling=sampling)
        following = ask(pipeline, 'Sure?', sampling=sampling)
    # What was said there went on from the KV cache; elsewhere nothing is cached.
    longer = (*earlier, turn('Is it the same?', answer.text))
    with VlmPipeline.open(tiny_spec) as other:
        again = ask(other, 'Is it the same?', 'other', earlier=earlier, sampling=sampling)
        assert again.text == answer.text
        assert ask(other, 'Sure?', 'other', sampling=sampling).text == following.text
        assert ask(other, 'Sure?', 'x', earlier=longer, sampling=sampling).success
    assert [ref.stamp_ns for ref in answer.frames] == [1, 2]


def test_a_scripted_conversation_costs_and_says_the_same_told_and_spoken(open_scripted):
    pipeline = open_scripted(**ECHO)
    first = ask(pipeline, 'How bright?', 'spoken', frames=(DARK,))
    second = ask(pipeline, 'And this?', 'spoken', frames=(LIGHT,))
    third = ask(pipeline, 'How many images?', 'spoken')
    earlier = (turn('How bright?', first.text, DARK), turn('And this?', second.text, LIGHT))
    told = ask(pipeline, 'How many images?', 'told', earlier=earlier)
    assert (told.text, third.text) == ('2', '2')
    assert told.timings.prompt_tokens == third.timings.prompt_tokens
    # Token by token the same, or the rows in the KV cache would not serve it.
    assert told.timings.cached_prompt_tokens >= third.timings.prompt_tokens - 1
    assert [ref.stamp_ns for ref in told.frames] == [ref.stamp_ns for ref in third.frames]
    assert 'begins here' not in told.message
    assert ask(pipeline, 'How many images?', 'told').text == '2', 'it goes on from there'


def test_what_is_told_takes_the_place_of_what_was_remembered(open_scripted):
    pipeline = open_scripted(**ECHO)
    ask(pipeline, 'How bright?', frames=(DARK, LIGHT))
    earlier = (turn('How bright?', '10', DARK),)
    assert ask(pipeline, 'How many images?', earlier=earlier).text == '1'
    assert ask(pipeline, 'How many images?', continues_session=True).text == '1'


def test_a_told_conversation_exists_for_a_question_that_goes_on_with_it(open_scripted):
    pipeline = open_scripted(**ECHO)
    question = Question('How many images?', session_id='s', continues_session=True)
    assert pipeline.ask(question).answer(60).error_code is ErrorCode.UNKNOWN_SESSION
    earlier = (turn('How bright?', '10', DARK),)
    assert ask(pipeline, 'How many images?', continues_session=True, earlier=earlier).text == '1'


def test_a_frame_of_an_earlier_turn_that_is_asked_about_again_is_shown_once(open_scripted):
    pipeline = open_scripted(**ECHO)
    earlier = (turn('How bright?', '10', DARK), turn('And now?', '10', DARK))
    answer = ask(pipeline, 'How many images?', earlier=earlier, frames=(DARK,))
    assert answer.text == '1'


def test_damaged_frames_of_earlier_turns_are_left_out(open_scripted):
    pipeline = open_scripted(**ECHO)
    damaged = StoredFrame(FrameSource('front'), 5, CompressedImage('jpeg', b'no jpeg'), 1)
    earlier = (turn('How bright?', '10', damaged, DARK),)
    assert ask(pipeline, 'How many images?', earlier=earlier).text == '1'


def test_the_system_prompt_goes_over_with_the_conversation(open_scripted):
    pipeline = open_scripted(**ECHO)
    plain = ask(pipeline, 'How many images?', 'a', earlier=(turn('How?', '10', DARK),))
    earlier = (turn('How?', '10', DARK, system_prompt='Be brief, be quick, be right.'),)
    with_one = ask(pipeline, 'How many images?', 'b', earlier=earlier)
    assert with_one.timings.prompt_tokens > plain.timings.prompt_tokens


@pytest.mark.parametrize('turns', [3, 40])
def test_what_does_not_fit_of_what_is_told_is_forgotten_from_its_beginning(open_scripted, turns):
    pipeline = open_scripted(**ECHO, limits={'context_tokens': 600, 'longest_prompt': 599})
    earlier = tuple(turn(f'Number {n}?', f'It is {n}.') for n in range(turns))
    answer = ask(pipeline, 'How many images?', earlier=earlier, frames=(DARK,))
    assert answer.text == '1'
    assert ('were forgotten' in answer.message) == (turns > 3), answer.message
