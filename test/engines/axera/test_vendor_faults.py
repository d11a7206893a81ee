"""Each fault of the vendor's demo loop, through the whole pipeline: none is ours.

Source of the list: a reading of AXERA-TECH/InternVL3-2B.axera.
"""

from dataclasses import replace

import numpy as np
import pytest

from edge_vlm_ros.core import (
    ErrorCode,
    FinishReason,
    FrameSource,
    Question,
    RawImage,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.serving import ModelSpec, VlmPipeline
from edge_vlm_ros.serving.loading import load_model

pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')

from support.axera.reference import Reference
from support.axera.sets import NINE, RECITED
from support.axera.weights import tiny_weights

pytestmark = pytest.mark.axera

CHUNK = NINE.chunk
LONGEST = max(NINE.histories) + CHUNK
GREEDY = SamplingOptions(max_tokens=4)


class Recorder:
    """An engine that notes the tokens it is given."""

    def __init__(self, engine):
        self._engine = engine
        self.held = []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def prefill(self, part, features, *more):
        del self.held[self._engine.kv.length :]
        self._engine.prefill(part, features, *more)
        self.held += part.tokens.tolist()

    def decode(self, token, position):
        del self.held[self._engine.kv.length :]
        self._engine.decode(token, position)
        self.held.append(token)


@pytest.fixture
def open_pipeline(backend, write_set):
    """Open a pipeline on a set by kind; gives it and the recorder of its engine."""
    opened = []

    def make(kind='tiny', **options):
        spec = ModelSpec('ax650', str(write_set(kind)), options={'backend': backend, **options})
        kept = {}

        def load(*heard):
            loaded = load_model(spec, *heard)
            kept['engine'] = Recorder(loaded.engine)
            return type(loaded)(
                kept['engine'], loaded.family, loaded.model, loaded.chip, loaded.family_name
            )

        opened.append(VlmPipeline.start(load))
        return opened[-1], kept['engine']

    yield make
    for pipeline in opened:
        pipeline.close()


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        data = rng.integers(0, 256, (56, 56, 3), np.uint8).tobytes()
        image = RawImage('rgb8', 56, 56, 3 * 56, data)
        found.append(StoredFrame(FrameSource('front', '/image', 'optical'), i + 1, image))
    return tuple(found)


def ask(pipeline, text, **more):
    return pipeline.ask(Question(text, sampling=GREEDY, **more)).answer(60)


def reference_says(prompt, count):
    """Answer a prompt of words with the float model; None where it is in doubt."""
    reference = Reference(tiny_weights())
    table = tiny_weights().table
    tokens = list(prompt)
    for _ in range(count):
        scores = reference.logits(table[tokens].astype(np.float64), last=1)[0]
        best, second = np.argsort(scores)[-1], np.argsort(scores)[-2]
        if scores[best] - scores[second] < 0.3 * scores.std():
            return None
        tokens.append(int(best))
    return tokens[len(prompt) :]


def test_prompts_that_end_on_a_chunk_border_are_answered_from_their_last_token(open_pipeline):
    pipeline, engine = open_pipeline()
    base = ask(pipeline, 'x').timings.prompt_tokens - 1
    compared = 0
    for chunks in (3, 4, 5, 6):
        for off in (-1, 0, 1):
            text = 'abcdefgh' * 20
            asked = ask(pipeline, text[: chunks * CHUNK - base + off])
            assert asked.timings.prompt_tokens == chunks * CHUNK + off
            prompt = engine.held[: chunks * CHUNK + off]
            expected = reference_says(prompt, 1)
            if expected:
                found = engine.held[len(prompt) : len(prompt) + 1]
                assert found == expected or asked.finish_reason is FinishReason.STOP
                compared += 1
    assert compared > 5


def test_a_question_without_images_is_asked(open_pipeline):
    pipeline, engine = open_pipeline()
    answer = ask(pipeline, 'Who are you?')
    assert answer.success, answer.message
    assert answer.timings.vision_tokens == 0
    assert bytes(t for t in engine.held if t < 256).count(b'Who are you?') == 1


@pytest.mark.parametrize('count', [1, 2, 4])
def test_a_question_stands_once_behind_all_its_images(open_pipeline, count):
    pipeline, engine = open_pipeline()
    answer = ask(pipeline, 'What is it?', frames=frames(count))
    assert answer.success, answer.message
    prompt = engine.held[: answer.timings.prompt_tokens]
    placeholder = 261
    assert prompt.count(placeholder) == 4 * count == answer.timings.vision_tokens
    behind = prompt[len(prompt) - prompt[::-1].index(placeholder) :]
    letters = bytes(t for t in prompt if t < 256)
    assert letters.count(b'What is it?') == 1
    assert letters.count(b'assistant') == 1
    assert b'What is it?' in bytes(t for t in behind if t < 256)


def test_no_character_is_lost_however_tokens_cut_it(open_pipeline):
    pipeline, _ = open_pipeline('tiny-reciting')
    stream = pipeline.ask(Question('Say it.'))
    chunks = list(stream)
    text = ''.join(chunk.delta for chunk in chunks)
    assert text == RECITED
    assert '\ufffd' not in text
    assert stream.answer(1).finish_reason is FinishReason.STOP
    assert stream.answer(1).timings.answer_tokens == len(RECITED.encode())


def test_an_answer_cut_by_its_length_keeps_its_last_characters(open_pipeline):
    pipeline, _ = open_pipeline('tiny-reciting')
    sampling = SamplingOptions(max_tokens=len(RECITED[:2].encode()))
    answer = pipeline.ask(Question('Say it.', sampling=sampling)).answer(60)
    assert answer.text == RECITED[:2]
    assert answer.finish_reason is FinishReason.LENGTH


def test_a_first_token_that_stops_is_no_answer(open_pipeline):
    pipeline, _ = open_pipeline('tiny-silent')
    for shown in ((), frames(1)):
        answer = ask(pipeline, 'Anything?', frames=shown)
        assert answer.error_code is ErrorCode.BAD_OUTPUT
        assert 'said nothing' in answer.message
        assert answer.text == ''
        assert answer.timings.answer_tokens == 0


def test_rows_that_nobody_wrote_do_not_spoil_answers(open_pipeline):
    """Buffers start as not-a-number; the recited text would not come from such scores."""
    pipeline, _ = open_pipeline('tiny-reciting')
    for text in ('a', 'a longer question than before', 'b'):
        assert pipeline.ask(Question(text)).answer(60).text == RECITED


def test_a_prompt_one_token_too_long_is_refused_with_the_numbers(open_pipeline):
    pipeline, engine = open_pipeline()
    longest = engine.limits.longest_prompt
    base = ask(pipeline, 'x').timings.prompt_tokens - 1
    fits = ask(pipeline, 'y' * (longest - base))
    assert fits.success, fits.message
    assert fits.timings.prompt_tokens == longest
    too_long = ask(pipeline, 'y' * (longest - base + 1))
    assert not too_long.success
    assert too_long.error_code is ErrorCode.PROMPT_TOO_LONG
    assert str(longest) in too_long.message
    assert str(longest + 1) in too_long.message
    assert ask(pipeline, 'x').success, 'the pipeline lives'


def test_an_image_too_many_is_refused(open_pipeline):
    pipeline, _ = open_pipeline()

    def shown(count):
        """Return frames of as many cameras: none is a moment of a clip that may be left out."""
        return tuple(
            replace(frame, source=FrameSource(f'camera {i}'))
            for i, frame in enumerate(frames(count))
        )

    most = next(n for n in range(1, 99) if not ask(pipeline, 'x', frames=shown(n)).success) - 1
    assert most >= 4
    refused = ask(pipeline, 'x', frames=shown(most + 1))
    assert refused.error_code in {ErrorCode.PROMPT_TOO_LONG, ErrorCode.TOO_MANY_FRAMES}
    assert any(letter.isdigit() for letter in refused.message)
    assert ask(pipeline, 'x', frames=shown(most)).success, 'the pipeline lives'


def test_a_question_asked_again_gives_the_same_answer_from_the_cache(open_pipeline):
    pipeline, _ = open_pipeline()
    first = ask(pipeline, 'What is it?', frames=frames(2))
    ask(pipeline, 'Something else, then.')
    again = ask(pipeline, 'What is it?', frames=frames(2))
    third = ask(pipeline, 'What is it?', frames=frames(2))
    assert first.text == again.text == third.text
    assert third.timings.cached_prompt_tokens > 8


def test_the_pipeline_says_which_way_the_chip_is_driven(open_pipeline, backend):
    pipeline, _ = open_pipeline()
    assert pipeline.info.way == backend.replace('_', ' ')


def test_a_set_of_another_tokenizer_is_refused(backend, set_files):
    from edge_vlm_ros.engines import open_engine

    engine = open_engine('ax650', set_files('tiny'), options={'backend': backend})
    from edge_vlm_ros.core import EdgeVlmError, text_part

    with pytest.raises(EdgeVlmError, match='token id 262'):
        engine.prefill(text_part([262], 0), {})
    engine.close()
