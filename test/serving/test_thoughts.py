"""A model that thinks aloud before it answers: only the answer is one."""

import pytest

from edge_vlm_ros.core import ErrorCode, FinishReason, Question, SamplingOptions

THOUGHTS = '<think>\nred? No, it is not red.\n</think>\n\n'


def test_thoughts_are_neither_streamed_nor_taken_for_a_choice(open_scripted):
    pipeline = open_scripted(
        answers=[{'answer': f'{THOUGHTS}It is blue.'}],
        limits={'samples_on_chip': True, 'has_logits': False},
    )
    stream = pipeline.ask(Question('Which?', choices=('red', 'blue'), session_id='s'))
    chunks = list(stream)
    answer = chunks[-1].answer
    assert ''.join(chunk.delta for chunk in chunks) == answer.text == 'It is blue.'
    assert answer.choice == 'blue'
    assert answer.message.endswith('the model thought aloud first, which is no part of its answer')
    again = pipeline.ask(Question('Sure?', session_id='s')).answer(10)
    assert again.success
    assert again.timings.cached_prompt_tokens > answer.timings.prompt_tokens, 'it goes on'


@pytest.mark.parametrize('most', [8, 14])
def test_an_answer_that_ends_in_thought_is_an_error_that_says_so(open_scripted, most):
    pipeline = open_scripted(answers=[{'answer': f'{THOUGHTS}Yes'}])
    sampling = SamplingOptions(max_tokens=most)
    answer = pipeline.ask(Question('Which?', choices=(), sampling=sampling)).answer(10)
    assert (answer.error_code, answer.text) == (ErrorCode.BAD_OUTPUT, '')
    assert answer.message.startswith(f'the model thought aloud for {most} tokens and said nothing')


def test_a_stop_text_counts_in_the_answer_only(open_scripted):
    pipeline = open_scripted(answers=[{'answer': '<think>A. B.</think>C. D.'}])
    answer = pipeline.ask(Question('Which?', stop=('.',))).answer(10)
    assert (answer.text, answer.finish_reason) == ('C', FinishReason.STOP_STRING)
