"""What is no answer ends as an error, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_vlm_ros.core import ErrorCode, FinishReason, Question, SamplingOptions
from edge_vlm_ros.engines import Logits
from edge_vlm_ros.serving import VlmPipeline
from edge_vlm_ros.serving.loading import load_model

# fixtures/inputs/bang.yaml of the reports: a chip whose output is NaN says token 0 for ever.
BANG = {
    'answers': [{'question': 'bang', 'answer': '!' * 32}, {'answer': '{question}'}],
    'limits': {
        'context_tokens': 2048,
        'longest_prompt': 2048,
        'can_extend_prefix': False,
        'prefill_chunk': 0,
        'max_images': 6,
        'samples_on_chip': True,
        'has_logits': False,
    },
}


def bad(answer):
    return (answer.finish_reason, answer.error_code) == (FinishReason.ERROR, ErrorCode.BAD_OUTPUT)


def test_token_0_for_ever_is_an_error(open_scripted):
    pipeline = open_scripted(**BANG)
    answer = pipeline.ask(Question('bang')).answer(60)
    assert bad(answer)
    assert "repeats itself: token 33 ('!') over and over; ended after 32 tokens" in answer.message
    assert set(answer.text) == {'!'}
    assert len(answer.text) < 8
    assert (answer.timings.answer_tokens, answer.model) == (32, pipeline.info.model)
    assert pipeline.ask(Question('Hi')).answer(60).text == 'Hi'


def test_nan_on_a_chip_that_chooses_itself_is_an_error(open_scripted):
    """Such a chip says token 0 for ever and nothing of NaN."""
    pipeline = open_scripted(
        limits={'samples_on_chip': True, 'has_logits': False},
        faults=[{'at': 'next_token', 'kind': 'nan', 'question': 'Open'}],
    )
    answer = pipeline.ask(Question('Open?')).answer(60)
    assert bad(answer)
    assert 'token 0 ' in answer.message
    assert answer.timings.answer_tokens == 32
    short = Question('Open?', sampling=SamplingOptions(max_tokens=10))
    assert bad(pipeline.ask(short).answer(60)), 'also where max_tokens cuts it'


@pytest.mark.parametrize('has_logits', [True, False])
@pytest.mark.parametrize(
    ('said', 'message'),
    [
        ('It is red. ' * 40, "the same 11 tokens ('"),
        ('yes' * 100, "the same 3 tokens ('"),
        ('', 'said nothing: 0 tokens'),
        (' ', 'said nothing: 1 tokens'),
    ],
)
def test_loops_and_silence_are_errors_on_chips_of_either_kind(
    open_scripted, has_logits, said, message
):
    pipeline = open_scripted(
        answers=[{'question': 'What', 'answer': said}, {'answer': 'Fine.'}],
        limits={'samples_on_chip': not has_logits, 'has_logits': has_logits},
    )
    answer = pipeline.ask(Question('What?')).answer(60)
    assert bad(answer)
    assert message in answer.message
    assert said.startswith(answer.text)
    assert len(answer.text) < 64
    assert pipeline.ask(Question('And?')).answer(60).text == 'Fine.'


def test_a_conversation_goes_on_as_if_a_loop_had_never_been(open_scripted, frame):
    answers = [{'question': 'loop', 'answer': 'no ' * 100}, {'answer': '{question} {images}'}]
    pipeline = open_scripted(answers=answers)

    def talk(session, *texts):
        frames = [(frame(9),), (), ()]
        questions = [
            Question(text, session_id=session, frames=shown)
            for text, shown in zip(texts, frames, strict=False)
        ]
        return [pipeline.ask(question).answer(60) for question in questions]

    first, loop, last = talk('a', 'One?', 'loop', 'Two?')
    assert first.success
    assert bad(loop)
    _, without = talk('b', 'One?', 'Two?')
    assert (last.text, last.timings.prompt_tokens) == (without.text, without.timings.prompt_tokens)


def test_a_loop_costs_one_answer_of_a_model_process_and_no_restart(ask_process):
    asker = ask_process(answers=[{'question': 'loop', 'answer': 'no ' * 100}, {'answer': 'Fine.'}])
    asker.ask('loop', 'a')
    asker.ask('And?', 'b')
    assert bad(asker.answer('a'))
    assert asker.answer('b').text == 'Fine.'
    assert asker.process.state.restarts == 0


def test_a_stop_string_is_never_shown_and_the_conversation_goes_on_without_it(open_scripted):
    pipeline = open_scripted(
        answers=[{'question': 'One', 'answer': 'first second ### third'}, {'answer': '{question}'}]
    )
    stopped = Question('One?', stop=('xx', ' ###'), session_id='a')
    chunks = list(pipeline.ask(stopped))
    answer = chunks[-1].answer
    assert answer.text == ''.join(chunk.delta for chunk in chunks) == 'first second'
    assert (answer.finish_reason, answer.success) == (FinishReason.STOP_STRING, True)
    then = pipeline.ask(Question('Two?', session_id='a')).answer(60)
    brief = Question('One?', session_id='b', sampling=SamplingOptions(max_tokens=12))
    assert pipeline.ask(brief).answer(60).text == 'first second'
    after = pipeline.ask(Question('Two?', session_id='b')).answer(60)
    assert then.timings.prompt_tokens == after.timings.prompt_tokens


class NanScores:
    """An engine whose chip computes NaN from the first answer on."""

    def __init__(self, engine):
        self.engine = engine
        self.is_warm = False

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def next_token(self, sampling):
        self.engine.next_token(sampling)
        return self.logits() if self.is_warm else self.engine.next_token(sampling)

    def logits(self):
        scores = self.engine.logits().values.copy()
        scores[7] = np.nan
        return Logits(scores)


@pytest.mark.parametrize('temperature', [0.0, 0.7])
@pytest.mark.parametrize('choices', [(), ('yes', 'no')], ids=['free', 'closed'])
def test_one_nan_of_a_real_model_is_enough(tiny_spec, temperature, choices):
    engines = []

    def load():
        loaded = load_model(tiny_spec)
        engines.append(NanScores(loaded.engine))
        return replace(loaded, engine=engines[0])

    with VlmPipeline.start(load) as pipeline:
        engines[0].is_warm = True
        sampling = SamplingOptions(12, temperature, top_k=5)
        answer = pipeline.ask(Question('Hi', choices=choices, sampling=sampling)).answer(60)
    assert answer.error_code is ErrorCode.DEVICE
    assert answer.message.startswith('chip cpu: the best of ')
    assert answer.message.endswith('the device computed nonsense')
    assert answer.text == ''


def test_a_penalty_changes_what_is_said(tiny_spec):
    with VlmPipeline.open(tiny_spec) as pipeline:
        plain, penalised = (
            pipeline.ask(
                Question('Say', sampling=SamplingOptions(24, repetition_penalty=penalty))
            ).answer(60)
            for penalty in (1.0, 2.0)
        )
    assert plain.text != penalised.text
