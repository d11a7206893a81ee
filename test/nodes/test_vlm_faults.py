"""What goes wrong on a robot: a clear answer each time, and the node goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

DEMO_MODEL = Path(__file__).resolve().parents[2] / 'edge_vlm_ros' / 'demo' / 'model'
pytestmark = [pytest.mark.ros, pytest.mark.slow]

SLOW = """
answers: [{answer: 'one two three four five six seven eight nine ten'}]
latency: {decode_s: 0.1}
faults:
  - {at: decode, kind: exit, question: crash, token: 3}
  - {at: prefill, kind: error, question: refuse, message: 'the chip is hot'}
"""


def children_of(pid):
    """Return the ids of a process's children."""
    files = Path(f'/proc/{pid}/task').glob('*/children')
    return [int(word) for file in files for word in file.read_text().split()]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'


@pytest.fixture(scope='module')
def client(robot):
    robot.camera_process = robot.camera()
    robot.node = robot.vlm({'chip': 'scripted', 'model': robot.script(SLOW), 'max_age_s': 5.0})
    robot.client.until_state('ready')
    robot.client.until_frames()
    return robot.client


def test_a_dead_engine_is_an_answer_and_the_next_question_waits_for_the_new_one(client, robot):
    answer = client.ask('crash now', request_id='crash')
    assert answer.error_code == answer.ERROR_ENGINE_DIED
    assert answer.finish_reason == answer.FINISH_ERROR
    chunks = client.all_chunks_of('crash')
    assert sum(chunk.done for chunk in chunks) == 1
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert 'ten' not in answer.text
    good = client.ask('and now?')
    assert good.error_code == 0, good.message
    assert good.text.endswith('ten')


def test_a_killed_engine_likewise(client, robot):
    future = client.ask_later('a question', request_id='killed')
    client.until(lambda: bool(client.chunks_of('killed')))
    (model,) = children_of(robot.node.pid)
    os.kill(model, signal.SIGKILL)
    answer = client.result(future).answer
    assert answer.error_code == answer.ERROR_ENGINE_DIED
    assert client.ask('and now?').error_code == 0
    assert (model,) != tuple(children_of(robot.node.pid))


def test_a_device_error_is_an_answer(client):
    answer = client.ask('refuse this')
    assert answer.error_code == answer.ERROR_DEVICE
    assert 'hot' in answer.message
    assert answer.text == ''
    assert client.ask('and now?').error_code == 0


def test_a_conversation_that_was_lost_is_refused_and_then_begun_anew(client):
    client.until_frames()
    assert client.ask('hello', session_id='talk', max_tokens=2).error_code == 0
    assert client.ask('hello', session_id='talk', max_tokens=2).error_code == 0
    # Conversations that come to nothing take room in the model process, unknown to the node.
    for number in range(16):
        assert client.ask('refuse this', session_id=f's{number}').error_code == 500
    lost = client.ask('hello', session_id='talk', request_id='lost')
    assert lost.error_code == lost.ERROR_UNKNOWN_SESSION
    assert "'talk'" in lost.message
    assert lost.text == ''
    assert [chunk.done for chunk in client.all_chunks_of('lost')] == [True]
    anew = client.ask('hello', session_id='talk', max_tokens=2)
    assert anew.error_code == 0, anew.message
    assert len(anew.frames) == 1


def test_cancel_ends_an_answer_early_and_is_acknowledged_at_once(client):
    future = client.ask_later('a question', request_id='c1')
    queued = client.ask_later('a question', request_id='c2')
    client.until(lambda: bool(client.chunks_of('c1')))
    assert client.cancel('c1').cancelled == 1
    answer = client.result(future).answer
    assert (answer.finish_reason, answer.error_code) == (
        answer.FINISH_CANCELLED,
        answer.ERROR_CANCELLED,
    )
    assert answer.text
    assert answer.text == ''.join(chunk.delta for chunk in client.all_chunks_of('c1'))
    assert 'ten' not in answer.text
    assert client.result(queued).answer.error_code == 0
    assert client.cancel('c1').cancelled == 0


def test_cancel_of_all_ends_all(client):
    futures = [client.ask_later('a question', request_id=f'a{i}') for i in range(3)]
    client.until(lambda: bool(client.chunks_of('a0')))
    assert client.cancel().cancelled == 3
    codes = [client.result(future).answer.error_code for future in futures]
    assert codes == [302] * 3
    for i in range(3):
        assert sum(chunk.done for chunk in client.all_chunks_of(f'a{i}')) == 1


def test_a_goal_is_cancelled(client):
    from edge_vlm_ros.action import Ask

    feedback = []
    client.until(client.action.server_is_ready)
    handle = client.result(
        client.action.send_goal_async(Ask.Goal(question='a question'), feedback.append)
    )
    client.until(lambda: bool(feedback))
    request_id = feedback[0].feedback.chunk.request_id
    assert request_id == bytes(handle.goal_id.uuid).hex()
    client.result(handle.cancel_goal_async())
    result = client.result(handle.get_result_async())
    assert result.status == 5  # STATUS_CANCELED
    assert result.result.answer.finish_reason == result.result.answer.FINISH_CANCELLED
    assert sum(chunk.done for chunk in client.all_chunks_of(request_id)) == 1


def test_a_deadline_gives_what_had_been_said(client):
    answer = client.ask('a question', timeout_s=0.5, request_id='late')
    assert (answer.finish_reason, answer.error_code) == (
        answer.FINISH_DEADLINE,
        answer.ERROR_DEADLINE,
    )
    chunks = client.all_chunks_of('late')
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert 'ten' not in answer.text
    assert client.ask('and now?').error_code == 0


def test_parameters_answer_while_an_answer_is_made(client):
    from rcl_interfaces.srv import GetParameters

    getter = client.node.create_client(GetParameters, 'vlm/get_parameters')
    client.until(getter.service_is_ready)
    future = client.ask_later('a question')
    client.result(getter.call_async(GetParameters.Request(names=['chip'])))
    assert not future.done()
    assert client.result(future).answer.error_code == 0


def test_deactivate_keeps_the_weights_and_refuses(client, robot):
    from lifecycle_msgs.srv import ChangeState

    change = client.node.create_client(ChangeState, 'vlm/change_state')
    client.until(change.service_is_ready)

    def transition(label):
        request = ChangeState.Request()
        request.transition.label = label
        return client.result(change.call_async(request)).success

    model = children_of(robot.node.pid)
    running = client.ask_later('a question', request_id='running')
    client.until(lambda: bool(client.chunks_of('running')))
    assert transition('deactivate')
    assert client.result(running).answer.error_code == 302
    assert sum(chunk.done for chunk in client.all_chunks_of('running')) == 1
    refused = client.ask('a question', request_id='refused')
    assert refused.error_code == refused.ERROR_NOT_READY
    assert 'inactive' in refused.message
    assert refused.model, 'it stays loaded'
    assert [chunk.done for chunk in client.all_chunks_of('refused')] == [True]
    assert children_of(robot.node.pid) == model
    assert transition('cleanup')
    assert children_of(robot.node.pid) == []
    client.until_state('unconfigured')
    assert transition('configure')
    assert transition('activate')
    client.until_state('ready')
    client.until_frames()
    assert client.ask('and now?').error_code == 0


def test_a_camera_that_dies_is_told_within_2_s(client, robot):
    client.until_frames()
    robot.camera_process.process.send_signal(signal.SIGSTOP)
    try:
        # 2 s are the promise, and diagnostics come once a second.
        client.until(lambda: client.level('camera camera') == 1, 3, 'the warning')
        stale = client.ask('a question', max_age_s=0.5)
    finally:
        robot.camera_process.process.send_signal(signal.SIGCONT)
    assert stale.error_code == stale.ERROR_STALE_FRAME
    client.until_frames()
    assert client.ask('and now?').error_code == 0


def test_ctrl_c_ends_every_request_and_leaves_no_process(client, robot):
    (model,) = children_of(robot.node.pid)
    future = client.ask_later('a question', request_id='last')
    client.until(lambda: bool(client.chunks_of('last')))
    robot.node.process.send_signal(signal.SIGINT)
    robot.node.process.send_signal(signal.SIGINT)
    answer = client.result(future).answer
    assert answer.error_code == answer.ERROR_CANCELLED
    assert sum(chunk.done for chunk in client.all_chunks_of('last')) == 1
    assert robot.node.wait(20) == 0
    assert 'Traceback' not in robot.node.output()
    assert not is_alive(model)


def test_a_question_that_comes_while_the_model_loads_waits_for_it(other_robot):
    robot, client = other_robot, other_robot.client
    script = "answers: [{answer: 'Here.'}]\nlatency: {load_s: 4.0}"
    robot.camera()
    node = robot.vlm({'chip': 'scripted', 'model': robot.script(script), 'max_age_s': 5.0})
    client.until_state('loading')
    client.until_frames()
    early = client.ask_later('Where are you?', request_id='early', timeout_s=30.0)
    short = client.ask_later('Where are you?', request_id='short', timeout_s=0.2)
    taken_back = client.ask_later('Where are you?', request_id='back', timeout_s=30.0)
    client.spin(0.3)
    assert client.cancel('back').cancelled == 1
    assert client.result(taken_back).answer.error_code == 302
    assert client.result(short).answer.error_code == 301
    assert client.result(early).answer.text == 'Here.'
    for request_id in ('early', 'short', 'back'):
        assert sum(chunk.done for chunk in client.all_chunks_of(request_id)) == 1
    # A reply may overtake the topic: only now has each final chunk come.
    ended = [chunk.request_id for chunk in client.chunks if chunk.done]
    assert ended[-1] == 'early', 'the others were not kept until the model was there'
    node.process.send_signal(signal.SIGTERM)
    assert node.wait(20) == 0


BROKEN = """
faults: [{at: load, kind: error, message: 'no chip here'}]
"""


@pytest.mark.parametrize(
    ('model', 'part'),
    [('/nowhere/model.yaml', '/nowhere/model.yaml'), ('unheard-of', 'unheard-of')],
)
def test_a_missing_model_ends_the_process_with_status_1(other_robot, model, part):
    node = other_robot.vlm({'chip': 'scripted', 'model': model})
    assert node.wait(30) == 1
    assert part in node.output()
    assert 'Traceback' not in node.output()


def test_an_accelerator_without_its_model_is_told_what_is_missing_and_how_to_get_it(other_robot):
    empty = {'XDG_DATA_HOME': str(other_robot.folder / 'no models')}
    node = other_robot.vlm({'chip': 'bm1684x', 'model': 'internvl3-2b'}, env=empty)
    assert node.wait(30) == 1
    assert 'model internvl3-2b for bm1684x: missing' in node.output()
    assert 'models fetch' in node.output()
    assert 'Traceback' not in node.output()


def test_a_damaged_model_file_ends_the_process_with_status_1(other_robot):
    folder = other_robot.folder / 'model'
    (folder / 'onnx').mkdir(parents=True)
    for file in DEMO_MODEL.rglob('*'):
        if file.is_file():
            target = folder / file.relative_to(DEMO_MODEL)
            data = file.read_bytes()
            target.write_bytes(data[: len(data) // 2] if file.suffix == '.onnx' else data)
    node = other_robot.vlm({'chip': 'cpu', 'model': folder})
    assert node.wait(60) == 1
    assert 'cannot be loaded' in node.output()
    assert '.onnx' in node.output()


def test_without_autostart_a_failed_configure_leaves_the_node_unconfigured(other_robot):
    from lifecycle_msgs.srv import ChangeState, GetState

    robot, client = other_robot, other_robot.client
    node = robot.vlm({'chip': 'scripted', 'model': '/nowhere/x.yaml', 'autostart': 'false'})
    change = client.node.create_client(ChangeState, 'vlm/change_state')
    get = client.node.create_client(GetState, 'vlm/get_state')
    client.until(lambda: change.service_is_ready() and get.service_is_ready())
    request = ChangeState.Request()
    request.transition.label = 'configure'
    assert not client.result(change.call_async(request)).success
    state = client.result(get.call_async(GetState.Request())).current_state
    assert state.label == 'unconfigured'
    client.until_state('failed')
    client.until(lambda: client.level('engine') == 2)
    assert '/nowhere/x.yaml' in client.status('engine').message
    answer = client.ask('a question', request_id='refused')
    assert answer.error_code == answer.ERROR_NOT_READY
    assert '/nowhere/x.yaml' in answer.message
    assert [chunk.done for chunk in client.all_chunks_of('refused')] == [True]
    assert node.process.poll() is None


def test_two_nodes_in_two_namespaces_do_not_meet(other_robot):
    robot = other_robot
    for name in ('one', 'two'):
        script = robot.script(f"answers: [{{answer: 'I am {name}.'}}]", f'{name}.yaml')
        parameters = {
            'chip': 'scripted',
            'model': script,
            'cameras.camera.transport': 'compressed',
            'max_age_s': 5.0,
        }
        robot.vlm(parameters, [f'__ns:=/{name}'])
        robot.camera({'transport': 'compressed'}, [f'__ns:=/{name}'])
    clients = {name: robot.new_client(f'/{name}') for name in ('one', 'two')}
    for name, client in clients.items():
        client.until_state('ready')
        client.until_frames()
        answer = client.ask('Who are you?', request_id=f'from {name}')
        assert answer.text == f'I am {name}.'
        assert answer.frames[0].topic == f'/{name}/image_raw/compressed'
    for name, client in clients.items():
        assert {chunk.request_id for chunk in client.chunks} == {f'from {name}'}
