"""Questions that a server answers: what is sent, what is made of what comes back."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image
from support.remote import WAIT_S, remote, served
from support.scripted_server import (
    MODEL,
    SILENCE_S,
    ScriptedServer,
    chunk,
    endless,
    lines,
    status,
    stream,
    usage,
    words,
)

from edge_vlm_ros.core import (
    BadImageError,
    CompressedImage,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    FrameSource,
    Question,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.remote.client import ServerClient
from edge_vlm_ros.serving import ModelSpec, check_spec

GOOD = words('I see a cone.')


def ask(vlm, text='What do you see?', *frames, **more):
    return vlm.ask(Question(text, frames=frames, **more)).answer(WAIT_S)


def jpeg(colour, side=32):
    out = io.BytesIO()
    Image.new('RGB', (side, side), colour).save(out, 'JPEG')
    return out.getvalue()


def shot(colour='red', *, camera='front', stamp_ns=1, received_ns=1, data=None):
    source = FrameSource(camera, '/image', 'optical')
    return StoredFrame(
        source, stamp_ns, CompressedImage('jpeg', data or jpeg(colour)), received_ns
    )


def pixel(url):
    kind, _, data = url.partition('base64,')
    assert kind == 'data:image/jpeg;'
    return Image.open(io.BytesIO(base64.b64decode(data))).getpixel((5, 5))


# --- what is sent --------------------------------------------------------------------------------


def test_only_what_every_server_takes_is_sent():
    with served(GOOD) as (vlm, server):
        answer = ask(vlm)
        (asked,) = server.asked
    assert answer.success, answer.message
    assert (answer.text, answer.finish_reason) == ('I see a cone.', FinishReason.STOP)
    assert (answer.model, answer.chip) == (MODEL, 'remote')
    assert asked.body == {
        'model': MODEL,
        'messages': [{'role': 'user', 'content': 'What do you see?'}],
        'stream': True,
        'stream_options': {'include_usage': True},
        'max_tokens': 1024,
        'temperature': 0.0,
    }


def test_frames_go_before_the_question_in_their_order_and_a_camera_s_jpeg_as_it_came():
    frames = [shot('red'), shot('blue', stamp_ns=2)]
    with served(GOOD) as (vlm, server):
        answer = ask(vlm, 'What do you see?', *frames)
        content = server.asked[0].body['messages'][-1]['content']
    assert [part['type'] for part in content] == ['image_url', 'image_url', 'text']
    red, blue = (pixel(url) for url in server.asked[0].urls)
    assert red[0] > 200
    assert blue[2] > 200
    sent = base64.b64decode(server.asked[0].urls[0].partition('base64,')[2])
    assert sent == bytes(frames[0].image.data)
    assert [(ref.stamp_ns, ref.width) for ref in answer.frames] == [(1, 32), (2, 32)]


def test_a_gateway_is_told_request_and_session_and_no_header_can_be_slipped_in():
    with served(GOOD) as (vlm, server):
        ask(vlm, request_id='a\r\nX-Evil: 1', session_id='küche')
    headers = server.asked[0].headers
    assert headers['X-Request-Id'] == 'a%0D%0AX-Evil: 1'
    assert headers['x-session-id'] == 'k%C3%BCche'
    assert 'X-Evil' not in headers


def test_sampling_is_sent_where_it_is_set_and_else_refused_by_name():
    chosen = SamplingOptions(7, temperature=0.5, top_p=0.9, top_k=3, seed=5)
    with served(GOOD) as (vlm, server):
        assert ask(vlm, sampling=chosen).success
        body = server.asked[0].body
        penalty = ask(vlm, sampling=SamplingOptions(repetition_penalty=1.2))
    assert (body['max_tokens'], body['temperature'], body['top_p']) == (7, 0.5, 0.9)
    assert (body['top_k'], body['seed']) == (3, 5)
    assert penalty.error_code is ErrorCode.UNSUPPORTED_OPTION
    assert 'repetition_penalty' in penalty.message
    assert len(server.asked) == 1, 'nothing was sent'
    with served(GOOD, sampling='repeat_penalty') as (vlm, server):
        assert ask(vlm, sampling=SamplingOptions(repetition_penalty=1.2)).success
        assert server.asked[0].body['repeat_penalty'] == 1.2
        assert 'top_k' in ask(vlm, sampling=SamplingOptions(top_k=2)).message


def test_extra_fields_go_along():
    with served(GOOD, extra='{"chat_template_kwargs": {"enable_thinking": false}}') as (
        vlm,
        server,
    ):
        ask(vlm)
    assert server.asked[0].body['chat_template_kwargs'] == {'enable_thinking': False}


def test_of_a_clip_only_so_many_moments_go_as_the_servers_take():
    frames = [shot(stamp_ns=n, received_ns=n) for n in range(1, 12)]
    with served(GOOD, max_images=3) as (vlm, server):
        answer = ask(vlm, 'What happened?', *frames)
    assert [ref.stamp_ns for ref in answer.frames] == [1, 6, 11]
    assert len(server.asked[0].urls) == 3
    assert 'of 11 frames 3' in answer.message


def test_images_that_were_chosen_are_not_left_out_but_refused():
    frames = [shot(camera='', stamp_ns=n, received_ns=0, data=jpeg((n, 0, 0))) for n in range(4)]
    with served(GOOD, max_images=3) as (vlm, server):
        answer = ask(vlm, 'Which?', *frames)
    assert answer.error_code is ErrorCode.TOO_MANY_FRAMES
    assert not server.asked


def test_too_large_a_request_is_refused_before_it_is_sent():
    with served(GOOD, max_request_kb=1) as (vlm, server):
        frames = ask(vlm, 'Well?', shot(data=jpeg('red', 200)))
        text = ask(vlm, 'word ' * 400)
    assert frames.error_code is ErrorCode.TOO_MANY_FRAMES
    assert 'max_request_kb' in frames.message
    assert text.error_code is ErrorCode.PROMPT_TOO_LONG
    assert not server.asked


def test_a_camera_s_damaged_frame_is_left_out_and_said():
    with served(GOOD) as (vlm, server):
        answer = ask(vlm, 'Well?', shot('red'), shot(stamp_ns=2, data=b'nothing'))
        assert answer.success
        assert [bad.stamp_ns for bad in answer.bad_frames] == [2]
        assert '1 of 2 frames could not be decoded' in answer.message
        only = ask(vlm, 'Well?', shot(data=b'nothing'))
        brought = ask(vlm, 'Well?', shot('red'), shot(received_ns=0, data=b'nothing'))
    assert only.error_code is brought.error_code is BadImageError.default_code
    assert len(server.asked) == 1


# --- what comes back -----------------------------------------------------------------------------


def test_the_answer_comes_word_by_word():
    gate = stream(
        lines(chunk('One '), done=False), 1.0, lines(chunk('two.'), chunk(finish='stop'))
    )
    with served(gate) as (vlm, _):
        chunks = vlm.ask(Question('Count.'))
        assert next(iter(chunks)).delta == 'One '
        assert not chunks.done
        assert chunks.answer(WAIT_S).text == 'One two.'


def test_counts_and_times_are_told():
    reply = stream(lines(chunk('a'), chunk(' b'), chunk(finish='stop'), usage(70, 2, 60)))
    with served(reply) as (vlm, _):
        timings = ask(vlm).timings
    assert (timings.prompt_tokens, timings.cached_prompt_tokens) == (70, 60)
    assert timings.answer_tokens == 2
    assert 0 < timings.time_to_first_token_s <= timings.total_s
    assert (timings.encode_s, timings.prefill_s) == (0, 0)


@pytest.mark.parametrize(
    ('events', 'reason'),
    [
        ([chunk('a'), chunk(finish='stop')], FinishReason.STOP),
        ([chunk('a'), chunk(finish='length'), usage(9, 12)], FinishReason.LENGTH),
        ([chunk('a'), chunk(finish='length')], FinishReason.LENGTH),
        ([chunk('a'), chunk(finish='length'), usage(9, 5)], FinishReason.CONTEXT),
    ],
)
def test_how_an_answer_ended(events, reason):
    with served(stream(lines(*events))) as (vlm, _):
        answer = ask(vlm, 'Well?', sampling=SamplingOptions(12))
    assert answer.success, answer.message
    assert answer.finish_reason is reason


@pytest.mark.parametrize('word', ['content_filter', 'abort', 'error', 'tool_calls', 'moon'])
def test_an_end_that_is_none_of_an_answer_is_an_error_with_the_text(word):
    with served(stream(lines(chunk('I am '), chunk(finish=word)))) as (vlm, _):
        answer = ask(vlm)
    assert answer.finish_reason is FinishReason.ERROR
    assert word in answer.message
    assert answer.text == 'I am '


def test_a_model_that_says_nothing_or_one_thing_for_ever_gives_no_answer():
    nothing = stream(lines(chunk(''), chunk(finish='stop')))
    thought = stream(
        lines({'choices': [{'delta': {'reasoning_content': 'hm'}}]}, chunk(finish='stop'))
    )
    loop = stream(lines(*[chunk('!')] * 200, chunk(finish='length')))
    with served(nothing, thought, loop) as (vlm, _):
        said = [ask(vlm) for _ in range(3)]
    assert {answer.error_code for answer in said} == {ErrorCode.BAD_OUTPUT}
    assert 'thought aloud' in said[1].message
    assert 'repeats itself' in said[2].message


def test_a_stop_string_ends_the_answer_and_the_connection():
    with served(stream(lines(chunk('One. Tw'), chunk('o. Th'), done=False), SILENCE_S)) as (
        vlm,
        s,
    ):
        answer = ask(vlm, 'Count.', stop=('Two',))
        s.until(lambda: s.asked[0].is_closed)
    assert (answer.text, answer.finish_reason) == ('One. ', FinishReason.STOP_STRING)


def test_choices_are_told_to_the_model_and_matched_in_its_words():
    with served(words('It is open.')) as (vlm, server):
        answer = ask(vlm, 'Is the door open or closed?', choices=('open', 'closed'))
    assert answer.choice == 'open'
    assert 'open; closed' in server.asked[0].texts[-1]
    assert answer.choice_probability is None, 'no scores came back'
    assert server.asked[0].body['logprobs'] is True


@pytest.mark.parametrize(
    ('way', 'field', 'value'),
    [
        ('grammar', 'grammar', 'root ::= "yes" | "\\"no\\""'),
        ('structured_outputs', 'structured_outputs', {'choice': ['yes', '"no"']}),
        ('regex', 'regex', '(yes|"no")'),
    ],
)
def test_choices_bind_the_model_where_the_server_can(way, field, value):
    with served(words('yes'), choices=way, logprobs=False) as (vlm, server):
        answer = ask(vlm, 'Well?', choices=('yes', '"no"'))
    assert answer.choice == 'yes'
    assert server.asked[0].body[field] == value
    assert server.asked[0].texts == ['Well?']
    assert 'logprobs' not in server.asked[0].body


def test_a_choice_is_as_probable_as_the_scores_say():
    top = [{'token': ' Yes', 'logprob': -0.5}, {'token': 'no', 'logprob': -1.5}]
    choice = {'logprobs': {'content': [{'token': 'Yes', 'top_logprobs': top}]}}
    reply = stream(lines(chunk('Yes', choice=choice), chunk(finish='stop')))
    with served(reply) as (vlm, _):
        answer = ask(vlm, 'Well?', choices=('yes', 'no'))
        alike = ask(vlm, 'Well?', choices=('yes', 'yes, but'))
    assert answer.choice_probability == pytest.approx(1 / (1 + 2.718281828**-1))
    assert alike.choice_probability is None


# --- conversations -------------------------------------------------------------------------------


def test_a_conversation_is_sent_whole_and_frames_once_each():
    with served(words('A cone.'), words('Red.')) as (vlm, server):
        ask(vlm, 'What is it?', shot('red'), session_id='s', system_prompt='Be brief.')
        answer = ask(vlm, 'Its colour?', shot('red'), session_id='s')
        ask(vlm, 'Alone?')
    messages = server.asked[1].body['messages']
    assert [message['role'] for message in messages] == ['system', 'user', 'assistant', 'user']
    assert server.asked[1].texts == ['Be brief.', 'What is it?', 'A cone.', 'Its colour?']
    assert len(server.asked[1].urls) == 1
    assert [ref.stamp_ns for ref in answer.frames] == [1]
    assert server.asked[2].texts == ['Alone?']


def test_what_failed_is_no_turn_and_a_reset_forgets():
    with served(words('A.'), status(400, 'no'), words('B.')) as (vlm, server):
        ask(vlm, 'One?', session_id='s')
        assert not ask(vlm, 'Two?', session_id='s').success
        ask(vlm, 'Three?', session_id='s')
        assert server.asked[2].texts == ['One?', 'A.', 'Three?']
        assert vlm.reset_session('s') == 1
        ask(vlm, 'Four?', session_id='s')
        assert server.asked[3].texts == ['Four?']
        gone = ask(vlm, 'Five?', session_id='t', continues_session=True)
    assert gone.error_code is ErrorCode.UNKNOWN_SESSION


def test_the_oldest_turns_go_where_there_is_no_room_and_shown_frames_stay_for_who_asks_on():
    with served(words('A.'), max_images=2) as (vlm, server):
        for number in range(3):
            frame = shot(stamp_ns=number, received_ns=number + 1)
            answer = ask(vlm, f'{number}?', frame, session_id='s')
        assert 'oldest 1 of 2 turns' in answer.message
        assert server.asked[-1].texts == ['1?', 'A.', '2?']
        assert len(server.asked[-1].urls) == 2


def test_the_system_prompt_of_a_session_is_its_first():
    with served(GOOD) as (vlm, _):
        ask(vlm, session_id='s', system_prompt='A')
        assert ask(vlm, session_id='s', system_prompt='B').error_code is ErrorCode.BAD_REQUEST


def test_a_conversation_can_be_handed_over():
    with served(words('A cone.')) as (vlm, _):
        ask(vlm, 'What is it?', shot('red'), session_id='s')
        (turn,) = vlm.conversation('s').turns
    assert (turn.text, turn.answer) == ('What is it?', 'A cone.')
    assert turn.frames[0].stored.image.format == 'jpeg'
    assert turn.frames[0].stored.stamp_ns == 1


# --- opening -------------------------------------------------------------------------------------


def test_it_says_at_once_that_frames_leave_the_robot(caplog):
    with served(GOOD) as (vlm, server):
        assert f'sent to {server.url}' in caplog.text
        assert vlm.info.servers == (server.url,)
        assert vlm.info.max_images == 8


@pytest.mark.parametrize(
    'entry',
    [{'id': 'm', 'max_model_len': 64}, {'id': 'm', 'meta': {'n_ctx': 64, 'n_ctx_train': 2048}}],
)
def test_what_a_server_holds_is_read_and_a_longer_prompt_is_not_sent(entry):
    with ScriptedServer([GOOD], models={'data': [entry]}) as server, remote(server) as vlm:
        assert vlm.info.context_tokens == 64
        assert ask(vlm).success
        answer = ask(vlm, 'word ' * 70)
    assert answer.error_code is ErrorCode.PROMPT_TOO_LONG
    assert '64' in answer.message
    assert len(server.asked) == 1


def test_a_prompt_that_a_server_cuts_without_a_word_is_noticed():
    cut = stream(lines(chunk('Yes.'), chunk(finish='stop'), usage(20, 2)))
    with served(cut) as (vlm, _):
        answer = ask(vlm, 'word ' * 70)
    assert answer.error_code is ErrorCode.PROMPT_TOO_LONG
    assert 'cut' in answer.message
    assert answer.text == 'Yes.'
    with served(cut, trusts_counts=False) as (vlm, _):
        assert ask(vlm, 'word ' * 70).success


def test_a_spec_names_what_it_would_open():
    spec = ModelSpec('remote', 'qwen', options={'servers': 'http://a:8000'})
    assert check_spec(spec) == 'qwen of http://a:8000/v1'


def test_questions_run_side_by_side_and_a_cancel_closes_the_connection():
    with served(endless()) as (vlm, server):
        streams = [vlm.ask(Question('Well?', name)) for name in 'abc']
        for each in streams:
            next(iter(each))
        assert vlm.cancel('b') == 1
        server.until(lambda: [asked.is_closed for asked in server.asked].count(True) == 1)
        closed = next(asked for asked in server.asked if asked.is_closed)
        assert closed.headers['X-Request-Id'] == 'b'
        assert streams[1].answer(WAIT_S).text.startswith('w0 ')
        assert not streams[0].done
        assert not streams[2].done


def test_a_deadline_closes_the_connection_too():
    with served(endless()) as (vlm, server):
        now_ns = vlm._clock.now_ns()
        answer = ask(vlm, deadline_ns=now_ns + 400_000_000)
        server.until(lambda: server.asked[0].is_closed)
    assert answer.error_code is ErrorCode.DEADLINE
    assert answer.text


def test_a_loop_that_cannot_run_is_said_when_it_is_opened(monkeypatch):
    async def fail(self):
        raise OSError(24, 'Too many open files')

    monkeypatch.setattr(ServerClient, 'start', fail)
    with pytest.raises(EdgeVlmError, match='Too many open files'), served(GOOD):
        pass


def test_a_wish_for_quickness_that_has_no_effect_is_said():
    with served(GOOD) as (vlm, _):
        answer = ask(vlm, max_latency_s=2.0)
    assert answer.success
    assert 'max_latency_s has no effect' in answer.message


def test_a_request_is_json_of_utf8():
    with served(GOOD) as (vlm, server):
        ask(vlm, 'Wo ist die Tür? 门')
    assert json.loads(server.asked[0].raw.decode())
    assert 'Tür? 门'.encode() in server.asked[0].raw
