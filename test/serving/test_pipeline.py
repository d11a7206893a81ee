"""Questions in, answers out, on the scripted engine."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.long_answer import long_words
from support.patience import Patience

from edge_vlm_ros.core import (
    NS_PER_S,
    BadRequestError,
    CompressedImage,
    ErrorCode,
    FinishReason,
    FrameSource,
    NotReadyError,
    Question,
    RawImage,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.serving import ServingSettings, VlmPipeline

STAGE_S = 2.0
LONG = {'answers': [{'answer': long_words(400)}], 'latency': {'decode_s': 0.01}}


def wait_until(condition, timeout_s=10.0):
    patience = Patience(timeout_s)
    while not condition():
        assert not patience.is_over(), 'nothing happened'
        time.sleep(0.005)


def begun(stream):
    """Wait for a stream's first chunk."""
    next(iter(stream))
    return stream


def test_an_answer_comes_chunk_by_chunk_with_one_final_chunk(open_scripted, frame):
    pipeline = open_scripted(answers=[{'answer': 'The door is open. 门开着 🚪'}])
    chunks = list(pipeline.ask(Question('Is the door open?', frames=(frame(),))))
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    answer = chunks[-1].answer
    assert ''.join(chunk.delta for chunk in chunks) == answer.text == 'The door is open. 门开着 🚪'
    assert answer.finish_reason is FinishReason.STOP
    assert answer.success


def test_an_answer_says_which_frames_it_used_and_what_it_cost(open_scripted, frame):
    pipeline = open_scripted(
        answers=[{'answer': 'A door.'}],
        latency={'encode_tile_s': 0.02, 'prefill_call_s': 0.03, 'decode_s': 0.01},
    )
    asked_ns = time.monotonic_ns()
    old = frame(10, stamp_ns=5, received_ns=asked_ns - 2 * NS_PER_S)
    new = frame(20, stamp_ns=6, side=16, received_ns=asked_ns - NS_PER_S)
    question = Question('What?', frames=(old, new), session_id='s', asked_ns=asked_ns)
    answer = pipeline.ask(question).answer(60)
    first, second = answer.frames
    assert (first.source, first.stamp_ns, first.width, first.height) == (old.source, 5, 8, 8)
    assert (second.source, second.stamp_ns, second.width, second.height) == (new.source, 6, 16, 16)
    assert (first.age_s, second.age_s) == (2.0, 1.0)
    timings = answer.timings
    stages_s = timings.queue_s + timings.prepare_s + timings.encode_s + timings.prefill_s
    assert timings.encode_s >= 0.04
    assert timings.prefill_s >= 0.03
    assert timings.decode_s >= 0.06
    assert stages_s <= timings.time_to_first_token_s
    assert stages_s + timings.decode_s <= timings.total_s
    assert timings.answer_tokens == len(b'A door.')
    assert timings.vision_tokens == 8
    assert timings.prompt_tokens > 8
    assert timings.cached_prompt_tokens == 0
    assert (answer.session_id, answer.chip) == ('s', 'scripted')
    assert answer.model == pipeline.info.model


def test_a_question_without_a_request_id_gets_one(open_scripted):
    pipeline = open_scripted()
    streams = [pipeline.ask(Question('Hello')) for _ in range(2)]
    names = {stream.request_id for stream in streams}
    assert len(names) == 2
    assert {stream.answer(60).request_id for stream in streams} == names


def test_the_same_request_id_is_refused_while_it_runs_and_free_afterwards(open_scripted):
    pipeline = open_scripted(**LONG)
    stream = begun(pipeline.ask(Question('Hello', request_id='a')))
    with pytest.raises(BadRequestError) as raised:
        pipeline.ask(Question('Hello again', request_id='a'))
    assert raised.value.code is ErrorCode.DUPLICATE_REQUEST
    assert stream.cancel()
    assert pipeline.ask(Question('Hello again', request_id='a')).cancel()


def test_a_repeated_question_finds_its_prompt_in_the_kv_cache(open_scripted, frame):
    pipeline = open_scripted(answers=[{'answer': '{means}'}])
    question = Question('How bright?', frames=(frame(50),))
    first, second = (pipeline.ask(question).answer(60) for _ in range(2))
    assert second.text == first.text
    assert second.timings.cached_prompt_tokens == second.timings.prompt_tokens - 1
    assert second.timings.encode_s == second.timings.prepare_s == 0.0


def test_another_question_on_the_same_frames_only_runs_its_own_words(open_scripted, frame):
    pipeline = open_scripted(answers=[{'answer': '{question} {means}'}])
    frames = (frame(50), frame(60, stamp_ns=2))
    pipeline.ask(Question('How bright?', frames=frames)).answer(60)
    answer = pipeline.ask(Question('What colour?', frames=frames)).answer(60)
    assert answer.text.startswith('What colour?')
    assert answer.timings.cached_prompt_tokens > 8
    assert answer.timings.encode_s == 0.0


@pytest.mark.parametrize('received_ns', [0, 77])
def test_other_pixels_under_the_same_stamp_are_another_frame(open_scripted, frame, received_ns):
    pipeline = open_scripted(answers=[{'answer': '{means}'}])
    texts = [
        pipeline.ask(
            Question(
                'How bright?', frames=(frame(value, received_ns=received_ns and received_ns + i),)
            )
        )
        .answer(60)
        .text
        for i, value in enumerate((0, 255))
    ]
    assert texts[0] != texts[1]


def test_an_engine_that_cannot_extend_a_prefix_starts_anew_each_time(open_scripted, frame):
    limits = {'can_extend_prefix': False, 'prefill_chunk': 0}
    pipeline = open_scripted(answers=[{'answer': '{means}'}], limits=limits)
    question = Question('How bright?', frames=(frame(50),))
    first, second = (pipeline.ask(question).answer(60) for _ in range(2))
    assert second.text == first.text
    assert second.timings.cached_prompt_tokens == 0


@pytest.mark.parametrize('first', [0, 20])
def test_an_engine_that_extends_token_by_token_reuses_its_cache(open_scripted, frame, first):
    """As static graphs do: prefill once from empty, later tokens through the decode graph."""
    limits = {'prefill_chunk': first, 'extension_chunk': 1}
    # Every step takes 1 ms: the time of a turn tells how many there were.
    pipeline = open_scripted(
        answers=[{'answer': '{question} {means}'}],
        limits=limits,
        latency={'prefill_call_s': 0.1, 'decode_s': 1e-3},
    )
    plain = open_scripted(answers=[{'answer': '{question} {means}'}])
    session = {'session_id': 's', 'frames': (frame(50),)}
    for text in ('How bright?', 'What colour?', 'How bright?'):
        question = Question(text, **session)
        answer, expected = (p.ask(question).answer(60) for p in (pipeline, plain))
        assert answer.text == expected.text
        assert answer.timings.cached_prompt_tokens == expected.timings.cached_prompt_tokens
    extended = answer.timings.prompt_tokens - answer.timings.cached_prompt_tokens
    assert extended > 1
    assert answer.timings.prefill_s >= 1e-3 * extended


def test_fifty_questions_at_once_each_see_their_own_frame(open_scripted, frame):
    pipeline = open_scripted(
        ServingSettings(max_waiting=50), answers=[{'answer': '{question}: {means}'}]
    )
    expected = {
        n: pipeline.ask(Question(f'Question {n}', frames=(frame(5 * n),))).answer(60).text
        for n in range(0, 50, 10)
    }
    with ThreadPoolExecutor(50) as threads:
        futures = {
            n: threads.submit(
                lambda n=n: pipeline.ask(
                    Question(f'Question {n}', f'id-{n}', frames=(frame(5 * n, camera=f'c{n}'),))
                ).answer(60)
            )
            for n in range(50)
        }
    answers = {n: future.result() for n, future in futures.items()}
    for n, answer in answers.items():
        assert answer.request_id == f'id-{n}'
        assert [ref.source.camera for ref in answer.frames] == [f'c{n}']
        assert answer.text.startswith(f'Question {n}: ')
    assert {n: answers[n].text for n in expected} == expected
    assert len({answer.text.split(': ')[1] for answer in answers.values()}) > 40


@pytest.mark.parametrize('stage', ['queue', 'encode', 'prefill', 'decode'])
def test_a_cancel_is_answered_at_once_in_every_phase(open_scripted, frame, stage):
    slow = {'encode': 'encode_tile_s', 'prefill': 'prefill_call_s', 'decode': 'decode_s'}
    latency = {slow[stage]: STAGE_S} if stage in slow else {'decode_s': 0.01}
    pipeline = open_scripted(answers=[{'answer': long_words(100)}], latency=latency)
    if stage == 'queue':
        begun(pipeline.ask(Question('The one before')))
    stream = pipeline.ask(Question('What?', frames=(frame(),)))
    time.sleep(0.2)
    started = time.monotonic()
    assert stream.cancel()
    answer = stream.answer(0)
    assert time.monotonic() - started < STAGE_S / 2, 'the end of the stage was waited for'
    assert (answer.finish_reason, answer.error_code) == (
        FinishReason.CANCELLED,
        ErrorCode.CANCELLED,
    )
    assert not stream.cancel(), 'once is enough'
    pipeline.cancel()
    assert pipeline.ask(Question('Hello')).cancel()


def test_no_text_comes_after_a_cancel(open_scripted):
    pipeline = open_scripted(**LONG)
    chunks = []
    stream = pipeline.ask(Question('Talk'), chunks.append)
    wait_until(lambda: len(chunks) > 3)
    stream.cancel()
    number = len(chunks)
    time.sleep(0.1)
    assert len(chunks) == number
    assert chunks[-1].done
    assert chunks[-1].answer.text == ''.join(chunk.delta for chunk in chunks)


def test_cancel_without_an_id_ends_all_questions(open_scripted):
    pipeline = open_scripted(**LONG)
    streams = [pipeline.ask(Question(f'Question {n}')) for n in range(4)]
    assert pipeline.cancel() == 4
    assert {stream.answer(0).error_code for stream in streams} == {ErrorCode.CANCELLED}
    assert pipeline.cancel() == 0


def test_a_full_queue_says_how_full_it_is(open_scripted):
    pipeline = open_scripted(ServingSettings(max_waiting=2), **LONG)
    streams = [pipeline.ask(Question(f'Question {n}')) for n in range(4)]
    answer = streams[3].answer(0)
    assert (answer.finish_reason, answer.error_code) == (FinishReason.ERROR, ErrorCode.BUSY)
    assert answer.text == ''
    assert '2 questions wait' in answer.message
    assert 'number 3' in answer.message


def test_a_deadline_gives_what_was_said_so_far(open_scripted):
    pipeline = open_scripted(**LONG)
    now_ns = time.monotonic_ns()
    running = pipeline.ask(Question('Talk', deadline_ns=now_ns + 500_000_000))
    waiting = pipeline.ask(Question('Me too', deadline_ns=now_ns + 300_000_000))
    answers = [stream.answer(60) for stream in (running, waiting)]
    for answer in answers:
        assert answer.finish_reason is FinishReason.DEADLINE
        assert answer.error_code is ErrorCode.DEADLINE
    assert answers[0].text
    assert long_words(399).startswith(answers[0].text), 'it was not cut'
    assert answers[1].text == ''


def test_a_question_that_comes_too_late_is_not_begun(open_scripted):
    pipeline = open_scripted()
    answer = pipeline.ask(Question('Hello', deadline_ns=1)).answer(60)
    assert answer.error_code is ErrorCode.DEADLINE
    assert answer.timings.answer_tokens == 0


def test_the_answer_ends_at_max_tokens(open_scripted):
    pipeline = open_scripted(answers=[{'answer': 'abcdefgh'}])
    answer = pipeline.ask(Question('Say', sampling=SamplingOptions(max_tokens=3))).answer(60)
    assert (answer.text, answer.finish_reason) == ('abc', FinishReason.LENGTH)
    assert answer.timings.answer_tokens == 3


def test_the_answer_ends_where_the_context_ends(open_scripted):
    pipeline = open_scripted(answers=[{'answer': long_words(100)}], limits={'context_tokens': 100})
    answer = pipeline.ask(Question('Say')).answer(60)
    assert answer.finish_reason is FinishReason.CONTEXT
    # The last token needs no room: nothing follows it.
    assert answer.timings.prompt_tokens + answer.timings.answer_tokens == 101
    assert answer.success


def bad_questions():
    source = FrameSource('front')
    corrupt = StoredFrame(source, 1, CompressedImage('jpeg', b'no picture'))
    empty = StoredFrame(source, 1, RawImage('rgb8', 0, 0, 0, b''))
    unknown = StoredFrame(source, 1, RawImage('quux8', 2, 2, 6, bytes(12)))
    short = StoredFrame(source, 1, RawImage('rgb8', 100, 100, 300, bytes(12)))
    for name, stored in (
        ('corrupt', corrupt),
        ('empty', empty),
        ('unknown', unknown),
        ('short', short),
    ):
        yield pytest.param(
            Question('What?', frames=(stored,)), ErrorCode.BAD_IMAGE, id=f'{name} image'
        )


@pytest.mark.parametrize(('question', 'code'), bad_questions())
def test_bad_images_get_their_code_and_the_next_question_is_answered(
    open_scripted, frame, question, code
):
    pipeline = open_scripted(answers=[{'answer': 'Fine.'}])
    answer = pipeline.ask(question).answer(60)
    assert (answer.finish_reason, answer.error_code) == (FinishReason.ERROR, code)
    assert answer.text == ''
    assert answer.message
    assert pipeline.ask(Question('And now?', frames=(frame(),))).answer(60).text == 'Fine.'


def test_a_prompt_that_is_too_long_is_refused_with_its_numbers_before_anything_runs(
    open_scripted, frame
):
    limits = {'context_tokens': 512, 'longest_prompt': 400}
    pipeline = open_scripted(answers=[{'answer': 'Fine.'}], limits=limits)
    short = pipeline.ask(Question('x', frames=(frame(),))).answer(60).timings.prompt_tokens
    answer = pipeline.ask(Question('x' * 600, frames=(frame(),))).answer(60)
    assert answer.error_code is ErrorCode.PROMPT_TOO_LONG
    assert f'{short + 599} tokens (4 for 1 frames)' in answer.message
    assert 'takes 400' in answer.message
    assert answer.timings.encode_s == 0
    longest = pipeline.ask(Question('x' * (400 - short + 1), frames=(frame(),))).answer(60)
    assert longest.text == 'Fine.'
    assert longest.timings.prompt_tokens == 400


def test_images_that_the_caller_chose_are_counted_against_the_limit_and_none_is_left_out(
    open_scripted, frame
):
    pipeline = open_scripted(limits={'max_images': 2})
    frames = tuple(frame(n, stamp_ns=n, camera='') for n in range(3))
    answer = pipeline.ask(Question('What?', frames=frames)).answer(60)
    assert answer.error_code is ErrorCode.TOO_MANY_FRAMES
    assert '3 frames' in answer.message
    assert '2' in answer.message
    assert len(answer.frames) == 3, 'and which they were'


@pytest.mark.parametrize(
    'limits',
    [{'max_images': 3}, {'longest_prompt': 110}, {'max_images': 4, 'longest_prompt': 110}],
)
def test_a_clip_is_sampled_down_to_what_the_model_takes_and_the_answer_says_so(
    open_scripted, frame, limits
):
    pipeline = open_scripted(answers=[{'answer': '{images}'}], limits=limits)
    frames = tuple(frame(n, stamp_ns=n) for n in range(9))
    answer = pipeline.ask(Question('What?', frames=frames)).answer(60)
    assert answer.success, answer.message
    shown = [ref.stamp_ns for ref in answer.frames]
    assert answer.text == str(len(shown))
    assert 1 < len(shown) < 9
    assert (shown[0], shown[-1]) == (0, 8), 'evenly in time, the newest among them'
    assert (
        answer.message == f'of 9 frames {len(shown)}, evenly in time, fit the model and were shown'
    )


def test_of_several_cameras_each_keeps_its_newest_frame(open_scripted, frame):
    pipeline = open_scripted(limits={'max_images': 4})
    frames = [frame(n, stamp_ns=n, camera='front') for n in range(6)]
    frames += [frame(n, stamp_ns=n, camera='rear') for n in range(2)]
    frames += [frame(9, stamp_ns=9, camera='left')]
    answer = pipeline.ask(Question('What?', frames=tuple(frames))).answer(60)
    shown = [(ref.source.camera, ref.stamp_ns) for ref in answer.frames]
    assert shown == [('front', 0), ('front', 5), ('rear', 1), ('left', 9)]
    stills = tuple(frame(9, camera=name) for name in 'abcde')
    refused = pipeline.ask(Question('What?', frames=stills)).answer(60)
    assert refused.error_code is ErrorCode.TOO_MANY_FRAMES, 'no camera is left out unasked'


def test_a_conversation_forgets_its_oldest_turns_before_it_shows_more_than_the_model_takes(
    open_scripted, frame
):
    pipeline = open_scripted(answers=[{'answer': '{images}'}], limits={'max_images': 2})

    def ask(*stamps):
        frames = tuple(frame(9, stamp_ns=stamp_ns) for stamp_ns in stamps)
        return pipeline.ask(Question('What?', session_id='s', frames=frames)).answer(60)

    assert [ask(stamp_ns).text for stamp_ns in (1, 2)] == ['1', '2']
    third = ask(3)
    assert (third.text, [ref.stamp_ns for ref in third.frames]) == ('2', [2, 3])
    assert 'the oldest 1 of 2 turns of this conversation were forgotten' in third.message
    assert ask().text == '2'


@pytest.mark.parametrize(
    'options',
    [
        {'temperature': 0.5},
        {'top_p': 0.5},
        {'top_k': 3},
        {'seed': 7},
        {'repetition_penalty': 1.1},
        {'temperature': 0.5, 'seed': 7},
    ],
    ids=str,
)
def test_what_a_chip_that_chooses_cannot_do_is_refused_by_name(open_scripted, options):
    pipeline = open_scripted(limits={'samples_on_chip': True, 'has_logits': False})
    hot = Question('Say', sampling=SamplingOptions(**options))
    answer = pipeline.ask(hot).answer(60)
    assert answer.error_code is ErrorCode.UNSUPPORTED_OPTION
    assert f': {" and ".join(options)} cannot be set; max_tokens, stop and' in answer.message
    assert pipeline.ask(Question('Say')).answer(60).text == 'Say'
    one = SamplingOptions(temperature=0.7, top_k=1, top_p=0.9, seed=7)
    assert pipeline.ask(Question('Say', sampling=one)).answer(60).text == 'Say', 'greedy'
    brief = Question('Say', stop=('y',), sampling=SamplingOptions(max_tokens=5))
    assert pipeline.ask(brief).answer(60).text == 'Sa', "these are the host's"


def test_a_thousand_bad_images_leave_nothing_behind(open_scripted, frame):
    pipeline = open_scripted(answers=[{'answer': 'Fine.'}])
    bad = StoredFrame(FrameSource('front'), 1, CompressedImage('jpeg', b'no picture'))
    codes = [
        pipeline.ask(Question('What?', frames=(bad,))).answer(60).error_code for _ in range(1000)
    ]
    assert set(codes) == {ErrorCode.BAD_IMAGE}
    assert pipeline.ask(Question('And now?', frames=(frame(),))).answer(60).text == 'Fine.'


def test_whoever_stops_listening_holds_up_nobody(open_scripted):
    pipeline = open_scripted(answers=[{'answer': long_words(20)}])
    for chunk in pipeline.ask(Question('Talk')):
        assert chunk.sequence == 0
        break
    stream = pipeline.ask(Question('And me?'))
    kept = weakref.ref(stream)
    assert stream.answer(60).success
    pipeline.ask(Question('Next')).answer(60)
    del stream
    gc.collect()
    assert kept() is None, 'a finished answer is not kept'


def test_a_listener_may_call_back_and_may_fail(open_scripted):
    pipeline = open_scripted(**LONG)

    def cancel_and_fail(chunk):
        pipeline.cancel(chunk.request_id)
        raise RuntimeError('the listener is broken')

    answer = pipeline.ask(Question('Talk'), cancel_and_fail).answer(60)
    assert answer.error_code is ErrorCode.CANCELLED
    assert pipeline.ask(Question('Hello')).cancel()


def test_closing_ends_every_question_once(open_scripted):
    pipeline = open_scripted(**LONG)
    chunks = []
    streams = [pipeline.ask(Question(f'Question {n}'), chunks.append) for n in range(3)]
    pipeline.close()
    pipeline.close()
    assert {stream.answer(0).error_code for stream in streams} == {ErrorCode.CANCELLED}
    assert sum(chunk.done for chunk in chunks) == 3
    with pytest.raises(NotReadyError):
        pipeline.ask(Question('Hello'))
    assert 'chip-worker' not in {thread.name for thread in threading.enumerate()}


def test_stage_costs_are_measured_at_start(open_scripted):
    latency = {'encode_tile_s': 0.02, 'prefill_call_s': 0.03, 'decode_s': 0.01}
    costs = open_scripted(latency=latency).info.costs
    assert 20 <= costs.encode_ms < 2000
    assert 30 <= costs.prefill_ms < 3000
    assert 10 <= costs.decode_ms < 1000
    assert costs.prefill_tokens > 4
    assert costs.prepare_ms > 0


def test_a_model_that_cannot_run_is_refused_at_start(scripted):
    spec = scripted(faults=[{'at': 'encode', 'message': 'no vision tower'}])
    with pytest.raises(Exception, match='no vision tower'):
        VlmPipeline.open(spec)
    assert 'chip-worker' not in {thread.name for thread in threading.enumerate()}
