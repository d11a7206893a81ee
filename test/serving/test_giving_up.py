"""A long piece of prefill is given up inside it, when its question is over or overdue."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from support.long_answer import long_words

from edge_vlm_ros.core import CancelledError, ErrorCode, FinishReason, Question, SamplingOptions
from edge_vlm_ros.engines import never
from edge_vlm_ros.serving import ModelSpec, VlmPipeline
from edge_vlm_ros.serving.loading import LoadedModel, load_model

# One piece of a long question takes 20 s, in 400 layers; short ones, the warm-up's too, take none.
SLOW = {
    'answers': [{'answer': '{question}'}],
    'latency': {'prefill_history_s': {100: 0.0, 4096: 20.0}, 'layers': 400},
}
LONG_TEXT = long_words(40).replace(' ', '-')
PIECE_S = 20.0


def test_a_cancel_inside_a_piece_frees_the_chip_for_the_next_question(open_scripted, caplog):
    pipeline = open_scripted(**SLOW)
    chunks = []
    stream = pipeline.ask(Question(LONG_TEXT, 'long'), chunks.append)
    following = pipeline.ask(Question('Short', 'short'), chunks.append)
    time.sleep(0.3)
    assert not chunks
    started = time.monotonic()
    assert stream.cancel()
    assert following.answer(60).text == 'Short'
    assert time.monotonic() - started < PIECE_S / 2, 'the rest of the piece was not waited for'
    finals = [chunk.request_id for chunk in chunks if chunk.done]
    assert finals == ['long', 'short']
    assert stream.answer(0).finish_reason is FinishReason.CANCELLED
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_deadline_inside_a_piece_ends_the_question_there(open_scripted, caplog):
    pipeline = open_scripted(**SLOW)
    chunks = []
    deadline_ns = time.monotonic_ns() + 300_000_000
    stream = pipeline.ask(Question(LONG_TEXT, deadline_ns=deadline_ns), chunks.append)
    answer = stream.answer(60)
    assert (answer.finish_reason, answer.error_code) == (
        FinishReason.DEADLINE,
        ErrorCode.DEADLINE,
    )
    assert 0.3 <= answer.timings.total_s < PIECE_S / 2
    assert len(chunks) == 1
    assert pipeline.ask(Question('Short')).answer(60).text == 'Short'
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_to_close_gives_up_the_piece_too(open_scripted):
    pipeline = open_scripted(**SLOW)
    stream = pipeline.ask(Question(LONG_TEXT))
    time.sleep(0.3)
    started = time.monotonic()
    pipeline.close()
    assert time.monotonic() - started < PIECE_S / 2
    assert stream.answer(0).error_code is ErrorCode.CANCELLED


def test_the_pieces_before_the_one_given_up_stay_in_the_cache(open_scripted):
    limits = {'prefill_chunk': 64}
    latency = {'prefill_history_s': {129: 0.0, 4096: PIECE_S}, 'layers': 400}
    pipeline = open_scripted(**SLOW | {'limits': limits, 'latency': latency})
    long = pipeline.ask(Question(LONG_TEXT))
    time.sleep(0.3)
    assert long.cancel()
    answer = pipeline.ask(Question(LONG_TEXT[:60])).answer(60)
    assert answer.text == LONG_TEXT[:60]
    # Both prompts are alike up to the end of the second one's question.
    closing = answer.timings.prompt_tokens - answer.timings.cached_prompt_tokens
    assert 1 < closing < 40
    again = pipeline.ask(Question(LONG_TEXT[:100]))
    assert again.answer(60).text == LONG_TEXT[:100]


def test_an_engine_that_gives_up_unasked_fails_its_question():
    class Unsteady(Wrapped):
        def prefill(self, part, features, should_stop=never):
            if len(part) > 100:
                raise CancelledError('lost its way')
            self.engine.prefill(part, features, should_stop)

    with VlmPipeline.start(lambda: wrapped(Unsteady)) as pipeline:
        answer = pipeline.ask(Question(LONG_TEXT)).answer(60)
        assert (answer.finish_reason, answer.message) == (
            FinishReason.ERROR,
            'prefill was given up unasked: lost its way',
        )
        assert pipeline.ask(Question('Hi')).answer(60).success


class Wrapped:
    """An engine around another one."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)


def wrapped(kind, spec=None):
    loaded = load_model(spec or ModelSpec('scripted'))
    return LoadedModel(
        kind(loaded.engine), loaded.family, loaded.model, loaded.chip, loaded.family_name
    )


class Layered(Wrapped):
    """A real engine whose pieces can be given up before they are run."""

    layers = 0
    begun = threading.Event()

    def prefill(self, part, features, should_stop=never):
        self.begun.set()
        for _ in range(self.layers):
            if should_stop():
                raise CancelledError('given up')
            time.sleep(0.005)
        self.engine.prefill(part, features, should_stop)


@pytest.mark.parametrize('ended_by', [ErrorCode.CANCELLED, ErrorCode.DEADLINE])
def test_the_great_law_holds_after_pieces_were_given_up(tiny_spec, frame, ended_by):
    greedy = SamplingOptions(max_tokens=12)
    shown = (frame(90),)
    questions = ['What do you see on the table?', 'What do you see under the table?']
    with VlmPipeline.open(tiny_spec) as plain:
        expected = [
            plain.ask(Question(text, frames=shown, sampling=greedy)).answer(60).text
            for text in questions
        ]
    with VlmPipeline.start(lambda: wrapped(Layered, tiny_spec)) as pipeline:
        codes = []
        for number in range(12):
            Layered.layers = 8
            Layered.begun.clear()
            due_ns = time.monotonic_ns() + 10_000_000 * (number + 1)
            deadline_ns = due_ns if ended_by is ErrorCode.DEADLINE else 0
            text = questions[number % 2]
            stream = pipeline.ask(
                Question(text, frames=shown, sampling=greedy, deadline_ns=deadline_ns)
            )
            if ended_by is ErrorCode.CANCELLED:
                assert Layered.begun.wait(10)
                time.sleep(0.005 * number)
                stream.cancel()
            codes.append(stream.answer(60).error_code)
            Layered.layers = 0
            other = (number + 1) % 2
            answer = pipeline.ask(Question(questions[other], frames=shown, sampling=greedy))
            assert answer.answer(60).text == expected[other]
    assert ended_by in codes
    assert set(codes) <= {ErrorCode.NONE, ended_by}
