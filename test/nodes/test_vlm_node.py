"""The vlm node on the real middleware: camera, node and client in processes of their own."""

from __future__ import annotations

import contextlib
import math
from array import array
from pathlib import Path

import pytest
from nodes.conftest import Robot

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers:
  - question: 'long'
    answer: 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen'
  - question: 'see'
    answer: 'I see {images} images.'
  - question: 'wörld'
    answer: 'Grüße, 世界 🤖!'
  - answer: 'You asked: {question}'
latency: {decode_s: 0.002}
limits: {context_tokens: 4096, max_images: 6, frames_per_question: 3}
"""


@pytest.fixture(scope='module', params=['scripted', 'remote'])
def chip(request):
    """Each kind of backend: a chip of this machine, and a server."""
    return request.param


@pytest.fixture(scope='module')
def robot(chip, tmp_path_factory):
    """Give each of them a robot of its own."""
    with contextlib.ExitStack() as stack:
        yield Robot(tmp_path_factory.mktemp('robot'), stack)


def model_of(robot, chip):
    """Return the parameters that say who answers."""
    if chip == 'scripted':
        return {'model': robot.script(SCRIPT)}
    _, port = robot.server()
    return {'remote.servers': f"['http://127.0.0.1:{port}/v1']", 'remote.max_images': 6}


@pytest.fixture(scope='module')
def client(robot, chip):
    parameters = {
        'chip': chip,
        **model_of(robot, chip),
        'camera_names': "['front','dead']",
        'cameras.front.topic': 'image_raw',
        'max_age_s': 5.0,
        'queue_size': 4,
    }
    robot.camera()
    robot.node = robot.vlm(parameters)
    robot.client.until_state('ready')
    robot.client.until_frames('front')
    return robot.client


def test_an_answer_names_its_frame_and_streams_what_it_says(client, chip):
    answer = client.ask('What do you see?', request_id='r1')
    assert answer.text == 'I see 1 images.'
    assert (answer.error_code, answer.finish_reason) == (answer.ERROR_NONE, answer.FINISH_STOP)
    assert (answer.chip, answer.request_id) == (chip, 'r1')
    (frame,) = answer.frames
    assert (frame.camera, frame.topic, frame.width) == ('front', '/image_raw', 160)
    assert frame.header.frame_id == 'camera_optical_frame'
    assert answer.header == frame.header
    assert 0 <= frame.age_s < 60
    stats = answer.stats
    assert 0 < stats.time_to_first_token_s <= stats.total_s
    assert stats.answer_tokens > 0
    assert stats.newest_frame_age_at_first_token_s >= stats.newest_frame_age_s
    chunks = client.all_chunks_of('r1')
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len(chunks) > 3
    assert chunks[-1].finish_reason == answer.FINISH_STOP
    client.until(lambda: answer.text in client.texts, what='answer_text')


def test_whole_characters_only_are_streamed(client):
    answer = client.ask('hello wörld', request_id='utf8')
    assert answer.text == 'Grüße, 世界 🤖!'
    chunks = client.all_chunks_of('utf8')
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert not any('\ufffd' in chunk.delta for chunk in chunks)


def test_special_tokens_in_a_question_are_words(client):
    assert client.ask('say <|im_end|> please').text == 'You asked: say <|im_end|> please'


def test_a_clip_has_frames_in_order(client):
    client.spin(1.5)
    answer = client.ask('What do you see?', last_seconds=1.0, max_frames=4)
    assert answer.text == 'I see 4 images.'
    stamps = [
        frame.header.stamp.sec * 10**9 + frame.header.stamp.nanosec for frame in answer.frames
    ]
    assert stamps == sorted(set(stamps))
    assert 0.5e9 < stamps[-1] - stamps[0] <= 1.1e9
    assert not answer.stats.window_truncated


def test_a_clip_has_no_more_frames_than_the_model_takes(client):
    client.spin(0.5)
    assert len(client.ask('see', last_seconds=3.0).frames) <= 6
    client.until(
        lambda: len(client.ask('see', last_seconds=3.0, max_frames=8).frames) == 6,
        what='more frames than the model takes',
    )
    answer = client.ask('see', last_seconds=3.0, max_frames=8)
    assert answer.message.startswith('of 8 frames 6, evenly in time, ')
    assert answer.text == 'I see 6 images.'


def test_a_clip_has_as_many_frames_as_the_model_bears_unless_more_are_asked_for(client, chip):
    client.until(
        lambda: len(client.ask('see', last_seconds=3.0, max_frames=5).frames) == 5,
        what='more frames than the model bears',
    )
    borne = 3 if chip == 'scripted' else 6  # What a server bears is not known: all it takes.
    client.until(
        lambda: client.ask('see', last_seconds=3.0).text == f'I see {borne} images.',
        what=f'a clip of {borne} frames',
    )


def test_a_window_longer_than_the_buffer_is_told(client):
    assert client.ask('see', last_seconds=600.0, max_frames=2).stats.window_truncated


def test_describe_asks_the_presets(client):
    assert client.describe().text == 'I see 1 images.'
    assert client.describe(preset='path').text == 'You asked: Is the way ahead clear?'
    unknown = client.describe(preset='nonsense', request_id='d1')
    assert unknown.error_code == unknown.ERROR_BAD_REQUEST
    assert 'scene' in unknown.message
    assert [chunk.done for chunk in client.all_chunks_of('d1')] == [True]


def test_the_action_streams_the_same_chunks(client):
    from edge_vlm_ros.action import Ask

    feedback = []
    client.until(client.action.server_is_ready)
    goal = Ask.Goal(question='a long one', request_id='goal')
    handle = client.result(
        client.action.send_goal_async(goal, lambda m: feedback.append(m.feedback.chunk))
    )
    assert handle.accepted
    # In this order: rclpy's client drops the feedback of a goal whose result it has.
    client.until(lambda: bool(feedback) and feedback[-1].done)
    result = client.result(handle.get_result_async())
    assert result.status == 4  # STATUS_SUCCEEDED
    assert result.result.success
    assert ''.join(chunk.delta for chunk in feedback) == result.result.answer.text
    assert feedback == client.all_chunks_of('goal')


def test_a_choice_is_told(client, chip):
    answer = client.ask('red', choices=['You asked: red', 'green'])
    assert (answer.choice, answer.choice_valid) == ('You asked: red', True)
    has_scores = chip == 'scripted'
    assert answer.choice_probability == pytest.approx(1.0 if has_scores else math.nan, nan_ok=True)
    answer = client.ask('red', choices=['blue', 'green'], request_id='closed')
    assert answer.choice in {'blue', 'green'}, 'the answer is always one of them'
    assert answer.choice_valid
    if has_scores:
        assert answer.choice_probability == pytest.approx(0.5)
        assert 'not what the model would have said' in answer.message
    assert ''.join(chunk.delta for chunk in client.all_chunks_of('closed')) == answer.choice
    assert math.isnan(client.ask('red').choice_probability)


def test_yes_or_no_and_stop_strings(client):
    answer = client.ask('red', yes_no=True)
    assert answer.choice in {'yes', 'no'}
    answer = client.ask('red', stop=['asked'])
    assert (answer.text, answer.finish_reason) == ('You ', answer.FINISH_STOP_STRING)
    refused = client.ask('red', yes_no=True, choices=['a'])
    assert refused.error_code == refused.ERROR_BAD_REQUEST
    assert math.isnan(refused.choice_probability)


def test_an_answer_that_repeats_itself_is_an_error_and_its_conversation_goes_on(client, chip):
    assert client.ask('red', session_id='loops').error_code == 0
    answer = client.ask('no ' * 40, session_id='loops', request_id='loop')
    assert answer.error_code == answer.ERROR_BAD_OUTPUT
    assert answer.finish_reason == answer.FINISH_ERROR
    assert 'repeats itself' in answer.message
    assert ('You asked: ' + 'no ' * 40).startswith(answer.text)
    if chip == 'scripted':  # What a server says is out at once.
        assert len(answer.text) < len('You asked: ') + 20
    assert [chunk.done for chunk in client.all_chunks_of('loop')].count(True) == 1
    assert client.ask('blue', session_id='loops').text == 'You asked: blue'


def test_an_image_in_the_request_comes_before_the_cameras(client):
    from sensor_msgs.msg import Image

    image = Image(encoding='rgb8', width=4, height=2, step=12, data=array('B', bytes(24)))
    image.header.frame_id = 'map_optical_frame'
    answer = client.ask('see', images=[image])
    (frame,) = answer.frames
    assert (frame.camera, frame.topic, frame.width, frame.height) == ('', '', 4, 2)
    assert answer.header.frame_id == 'map_optical_frame'


BAD_REQUESTS = {
    'empty question': ({'question': ' '}, 'ERROR_BAD_REQUEST', 'empty'),
    'question of 1 MB': ({'question': 'x' * 10**6}, 'ERROR_BAD_REQUEST', '65536'),
    'unknown camera': ({'cameras': ['rear']}, 'ERROR_UNKNOWN_CAMERA', 'front, dead'),
    'no frame': ({'cameras': ['dead']}, 'ERROR_NO_FRAME', '/dead/image_raw'),
    'stale frame': ({'max_age_s': 1e-6}, 'ERROR_STALE_FRAME', 'limit'),
    'negative timeout': ({'timeout_s': -1.0}, 'ERROR_BAD_REQUEST', 'timeout_s'),
    'bad temperature': ({'temperature': 99.0}, 'ERROR_BAD_REQUEST', '99'),
    'too long': ({'question': 'word ' * 9000}, 'ERROR_PROMPT_TOO_LONG', ''),
}


@pytest.mark.parametrize('name', BAD_REQUESTS)
def test_a_bad_request_is_refused_and_the_next_is_answered(client, name):
    fields, code, part = BAD_REQUESTS[name]
    request_id = f'bad {name}'
    answer = client.ask(**{'question': 'see', **fields}, request_id=request_id)
    assert answer.error_code == getattr(answer, code), answer.message
    assert part in answer.message
    assert answer.text == ''
    assert answer.finish_reason == answer.FINISH_ERROR
    (chunk,) = client.all_chunks_of(request_id)
    assert (chunk.done, chunk.error_code) == (True, answer.error_code)
    assert client.ask('see').text == 'I see 1 images.'


def bad_images():
    from sensor_msgs.msg import CompressedImage, Image

    return {
        'zero size': {'images': [Image(encoding='rgb8')]},
        'unknown encoding': {
            'images': [Image(encoding='xyz8', width=1, height=1, step=3, data=array('B', b'123'))]
        },
        'too few bytes': {
            'images': [Image(encoding='rgb8', width=9, height=9, step=27, data=array('B', b'1'))]
        },
        'corrupt JPEG': {
            'compressed_images': [
                CompressedImage(format='jpeg', data=array('B', b'\xff\xd8\xff\xe0 broken'))
            ]
        },
    }


@pytest.mark.parametrize(
    'name', ['zero size', 'unknown encoding', 'too few bytes', 'corrupt JPEG']
)
def test_a_bad_image_is_refused_and_the_next_question_is_answered(client, name):
    answer = client.ask('see', **bad_images()[name], request_id=name)
    assert answer.error_code == answer.ERROR_BAD_IMAGE, answer.message
    assert [chunk.done for chunk in client.all_chunks_of(name)] == [True]
    assert client.ask('see').text == 'I see 1 images.'


def test_two_people_ask_at_once_and_each_gets_his_own_answer(client):
    futures = {f'p{i}': client.ask_later(f'person {i}', request_id=f'p{i}') for i in range(4)}
    for i, (request_id, future) in enumerate(futures.items()):
        answer = client.result(future).answer
        assert answer.text == f'You asked: person {i}'
        text = ''.join(chunk.delta for chunk in client.all_chunks_of(request_id))
        assert text == answer.text


def test_a_full_queue_refuses_and_a_second_request_of_the_same_id_too(client):
    futures = [client.ask_later('a long one', request_id=f'q{i}') for i in range(4)]
    twin = client.ask_later('a long one', request_id='q0')
    more = client.ask_later('see', request_id='q4')
    codes = [client.result(f).answer.error_code for f in (twin, more)]
    answers = [client.result(future).answer for future in futures]
    assert all(answer.error_code == 0 for answer in answers)
    assert set(codes) <= {0, answers[0].ERROR_DUPLICATE_REQUEST, answers[0].ERROR_BUSY}
    assert codes[0] == answers[0].ERROR_DUPLICATE_REQUEST
    assert codes[1] == answers[0].ERROR_BUSY
    # The twin's refusal must not look like the end of the one that runs.
    assert sum(chunk.done for chunk in client.all_chunks_of('q0')) == 1
    assert client.ask('see').error_code == 0


def test_a_conversation_goes_on_about_the_frame_it_has_shown(client):
    first = client.ask('see', session_id='talk')
    second = client.ask('see', session_id='talk')
    assert second.text == 'I see 1 images.'
    assert second.frames[0].header == first.frames[0].header
    for _ in range(20):  # On a busy machine the camera may not have sent another frame yet.
        newer = client.ask('see', session_id='talk', cameras=['front'])
        if len(newer.frames) > 1:
            break
        client.spin(0.2)
    assert newer.text == 'I see 2 images.'
    reset = client.result(client.call('reset', session_id='talk'))
    assert reset.success
    again = client.ask('see', session_id='talk')
    assert again.text == 'I see 1 images.'
    assert again.frames[0].header != first.frames[0].header


def test_as_of_looks_back(client):
    from builtin_interfaces.msg import Time

    now = client.node.get_clock().now().nanoseconds
    client.spin(1.0)
    answer = client.ask('see', as_of=Time(sec=now // 10**9, nanosec=now % 10**9))
    stamp = answer.header.stamp.sec * 10**9 + answer.header.stamp.nanosec
    assert abs(stamp - now) < 0.6e9
    assert answer.frames[0].age_s > 0.4


def test_diagnostics_tell_of_engine_queue_and_cameras(client):
    client.until(lambda: client.status('queue') is not None)
    assert client.level('engine') == 0
    assert client.level('queue') == 0
    client.until_frames('front')
    values = {pair.key: pair.value for pair in client.status('camera front').values}
    assert float(values['fps']) > 1
    dead = client.status('camera dead')
    assert client.level('camera dead') == 1
    assert '/dead/image_raw' in dead.message


def test_every_parameter_is_described(client):
    from rcl_interfaces.srv import DescribeParameters, ListParameters

    lister = client.node.create_client(ListParameters, 'vlm/list_parameters')
    describer = client.node.create_client(DescribeParameters, 'vlm/describe_parameters')
    client.until(lambda: lister.service_is_ready() and describer.service_is_ready())
    names = client.result(lister.call_async(ListParameters.Request())).result.names
    ours = [n for n in names if n not in {'use_sim_time', 'start_type_description_service'}]
    request = DescribeParameters.Request(names=ours)
    found = client.result(describer.call_async(request)).descriptors
    assert len(found) > 25
    assert [d.name for d in found if not d.description] == []
    assert {'chip', 'model', 'camera_names'} <= {d.name for d in found if d.read_only}


def test_a_changed_parameter_holds_from_the_next_question_on(client):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    setter = client.node.create_client(SetParameters, 'vlm/set_parameters')
    client.until(setter.service_is_ready)

    def change(name, kind, **value):
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **value))
        request = SetParameters.Request(parameters=[parameter])
        (result,) = client.result(setter.call_async(request)).results
        return result.successful

    assert change('max_tokens', ParameterType.PARAMETER_INTEGER, integer_value=2)
    answer = client.ask('a long one')
    assert (answer.finish_reason, answer.stats.answer_tokens) == (answer.FINISH_LENGTH, 2)
    assert change('max_tokens', ParameterType.PARAMETER_INTEGER, integer_value=256)
    assert not change('max_tokens', ParameterType.PARAMETER_INTEGER, integer_value=-1)
    assert not change('chip', ParameterType.PARAMETER_STRING, string_value='cpu')


def test_the_node_keeps_within_its_memory(client, robot):
    process = Path(f'/proc/{robot.node.pid}')
    status = (process / 'status').read_text()
    kilobytes = int(status.partition('VmRSS:')[2].split()[0])
    buffered = {p.key: p.value for p in client.status('camera front').values}
    assert kilobytes / 1024 - float(buffered['buffered_megabytes']) < 150
    maps = (process / 'maps').read_text()
    assert 'cv2' not in maps
    assert 'onnxruntime' not in maps
    assert 'aiohttp' not in maps


def test_a_client_that_goes_away_does_no_harm(client, robot):
    gone = robot.new_client()
    gone.ask_later('a long one', request_id='gone')
    gone.spin(0.02)
    gone.node.destroy_node()
    assert client.ask('see').error_code == 0
    assert robot.node.process.poll() is None
