"""Answers in the model's own words: what is shown, what is kept, and what is no answer."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import (
    BadOutputError,
    BadRequestError,
    DeviceError,
    FinishReason,
    SamplingOptions,
)
from edge_vlm_ros.text import FreeText

GREEDY = SamplingOptions()


class Talk:
    """Say tokens as a chip would choose them, then the stop token."""

    def __init__(self, tokenizer, sampling=GREEDY, stop=()):
        self.stop_token = tokenizer.token_id('<|im_end|>')
        self.answer = FreeText(tokenizer, {self.stop_token}, sampling, stop)
        self.deltas = []

    def say(self, tokens):
        for token in [*tokens, self.stop_token]:
            if self.answer.reason is FinishReason.NONE:
                self.deltas.append(self.answer.take(token))
        return self.text

    @property
    def text(self):
        return ''.join(self.deltas)


TEXTS = st.text('ab .é門🙂\n', min_size=1, max_size=30).filter(str.strip)


@given(text=TEXTS, stops=st.lists(st.text('ab .é門🙂\n', min_size=1, max_size=4), max_size=3))
def test_nothing_of_a_stop_string_is_ever_shown(qwen, text, stops):
    talk = Talk(qwen, stop=stops)
    begun = text.lstrip()
    for token in qwen.encode(text):
        if talk.answer.reason is FinishReason.NONE:
            talk.deltas.append(talk.answer.take(token))
            assert not any(stop in talk.text for stop in stops)
            assert begun.startswith(talk.text), 'whole characters, in order, none lost'
    if talk.answer.reason is FinishReason.NONE:
        talk.say([])
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert (talk.text, talk.answer.reason) == (begun, FinishReason.STOP)
        return
    assert talk.answer.reason is FinishReason.STOP_STRING
    assert text[: min(ends)].lstrip().startswith(talk.text)
    said = qwen.decode(talk.answer.said).lstrip()
    assert said == talk.text, 'a conversation goes on from what was shown'


def test_blanks_that_a_model_begins_with_are_said_and_not_shown(qwen):
    """SmolVLM's answers begin with one: its prompt ends with a colon."""
    talk = Talk(qwen)
    tokens = qwen.encode(' \n Yes, it is.')
    assert talk.say(tokens) == 'Yes, it is.'
    assert list(talk.answer.tokens) == tokens
    assert not any(delta.isspace() for delta in talk.deltas)


def test_a_stop_string_at_the_very_beginning_is_an_answer_that_says_nothing(qwen):
    talk = Talk(qwen, stop=['a'])
    assert talk.say(qwen.encode('abc')) == ''
    assert talk.answer.reason is FinishReason.STOP_STRING


@pytest.mark.parametrize('text', ['', ' ', '\n\n', '\t \n'])
def test_an_answer_that_says_nothing_is_an_error(qwen, text):
    with pytest.raises(BadOutputError, match=r'said nothing: \d+ tokens .* \(ended by stop\)'):
        Talk(qwen).say(qwen.encode(text))


def test_an_answer_of_template_tokens_alone_is_an_error(qwen):
    marks = [qwen.token_id('<|im_start|>'), qwen.token_id('<|endoftext|>')] * 3
    with pytest.raises(BadOutputError, match='said nothing: 6 tokens'):
        Talk(qwen).say(marks)


def test_the_tokens_that_max_tokens_allows_must_say_something(qwen):
    with pytest.raises(BadOutputError, match=r'\(ended by length\)'):
        Talk(qwen, SamplingOptions(max_tokens=2)).say(qwen.encode(' \n \n '))


def test_a_loop_ends_with_what_was_said_before_it(qwen):
    talk = Talk(qwen)
    with pytest.raises(BadOutputError, match=r"repeats itself: token \d+ \('!'\)") as caught:
        talk.say([*qwen.encode('It is. '), *[qwen.encode('!')[0]] * 1000])
    assert 'ended after' in caught.value.message
    assert re.fullmatch(r'It is\. !{1,8}', talk.text)
    assert len(talk.answer.tokens) < 50


@pytest.mark.parametrize('most', [5, 40])
def test_how_long_a_run_of_one_token_may_be_is_chosen(qwen, most):
    talk = Talk(qwen, SamplingOptions(max_repeats=most))
    with pytest.raises(BadOutputError, match=f'ended after {most} tokens$'):
        talk.say(qwen.encode('?')[:1] * 1000)


def test_where_loops_do_not_end_an_answer_it_goes_on(qwen):
    talk = Talk(qwen, SamplingOptions(max_repeats=0, max_tokens=200))
    talk.say(qwen.encode('?')[:1] * 200)
    assert (talk.text, talk.answer.reason) == ('?' * 200, FinishReason.LENGTH)


def test_token_0_for_ever_comes_with_what_it_means_and_what_to_do(qwen):
    with pytest.raises(BadOutputError, match=r'scores are no numbers: take a build in bf16'):
        Talk(qwen).say([0] * 100)


@pytest.mark.parametrize('wrong', [1, -1])
def test_a_run_of_one_is_no_loop(wrong):
    with pytest.raises(BadRequestError, match='max_repeats is 0 or at least 2'):
        SamplingOptions(max_repeats=wrong)


def test_a_laugh_is_shown_whole(qwen):
    laugh = 'ha' + ' ha' * 19 + ', indeed.'
    talk = Talk(qwen)
    assert talk.say(qwen.encode(laugh)) == laugh


@given(st.integers(1, 10), st.integers(1, 6))
def test_what_waited_as_a_loop_is_shown_when_it_is_none(qwen, times, length):
    text = 'So: ' + 'abcdef'[:length] * times + '.'
    assert Talk(qwen).say(qwen.encode(text)) == text


@pytest.mark.parametrize(('most', 'is_loop'), [(7, False), (8, True), (20, True)])
def test_one_token_until_max_tokens_is_a_loop_though_short(qwen, most, is_loop):
    talk = Talk(qwen, SamplingOptions(max_tokens=most))
    tokens = [qwen.encode('!')[0]] * most
    if is_loop:
        with pytest.raises(BadOutputError, match='token'):
            talk.say(tokens)
    else:
        assert talk.say(tokens) == '!' * most


def test_a_full_context_ends_the_answer(qwen):
    talk = Talk(qwen)
    assert talk.answer.take(qwen.encode('a')[0], is_full=True) == 'a'
    assert talk.answer.reason is FinishReason.CONTEXT


def test_nan_scores_are_an_error_and_not_token_0(qwen):
    with pytest.raises(DeviceError, match='nan'):
        Talk(qwen).answer.choose(np.full(qwen.vocab_size, np.nan, np.float32))


@pytest.mark.parametrize(
    ('penalty', 'scores', 'chosen'),
    [
        (1.0, [3.0, 2.0, 1.0], 0),
        (1.6, [3.0, 2.0, 1.0], 1),  # 3 / 1.6 < 2
        (1.4, [3.0, 2.0, 1.0], 0),
        (1.6, [-1.0, -1.5, -9.0], 1),  # -1 x 1.6 < -1.5
        (0.5, [1.0, 1.5, 0.0], 0),  # 1 / 0.5 > 1.5
        (2.0, [-3e38, -3.1e38, -np.inf], 1),
    ],
)
def test_what_was_said_is_less_likely_with_a_penalty(qwen, penalty, scores, chosen):
    talk = Talk(qwen, SamplingOptions(repetition_penalty=penalty))
    talk.answer.take(0)
    logits = np.array(scores, np.float32)
    assert talk.answer.choose(logits) == chosen
    assert logits.tolist() == np.array(scores, np.float32).tolist(), 'left unchanged'


def test_the_prompt_does_not_count_for_the_penalty(qwen):
    answer = FreeText(qwen, (), SamplingOptions(repetition_penalty=2.0))
    assert answer.choose(np.array([3.0, 2.0], np.float32)) == 0
