"""The page's process on the ROS graph: an ordinary client that opens what somebody wants."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import warnings
from contextlib import asynccontextmanager

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession
from support.page_site import TOKEN, Visitor, next_picture, run, until
from support.patience import Patience

from edge_vlm_ros.web import bounds

pytestmark = pytest.mark.ros

SCRIPT = """
latency: {decode_s: 0.02}
answers:
  - question: long
    answer: '{words}'
  - answer: '{images} seen'
"""
WORDS = ' '.join(f'w{place:03d}' for place in range(900))


@pytest.fixture(scope='module')
def page(robot, tmp_path_factory):
    """A vlm node with a raw and a compressed camera, and its page."""
    token = tmp_path_factory.mktemp('token') / 'token'
    token.write_text(f'{TOKEN}\n')
    script = robot.script(SCRIPT.replace('{words}', WORDS))
    robot.vlm(
        {
            'chip': 'scripted',
            'model': script,
            'camera_names': '[raw,packed]',
            'cameras.raw.topic': '/robot/image_raw',
            'cameras.packed.topic': '/not/this',
            'cameras.packed.transport': 'compressed',
            'max_tokens': 900,
        },
        # The parameter does not know of this.
        ['/not/this:=/robot/image_raw/compressed'],
    )
    robot.camera(
        {'transport': 'both', 'width': 960, 'fps': 15.0},
        [
            'image_raw:=/robot/image_raw',
            'image_raw/compressed:=/robot/image_raw/compressed',
        ],
    )
    served = robot.start('web_main', {'web.port': 0, 'web.token_file': token})
    served.wait_for_output('the page is at ')
    url = re.search(r'the page is at (\S+)\?token=', served.output())[1]
    assert TOKEN not in served.output()

    @asynccontextmanager
    async def visit():
        async with ClientSession() as session:
            yield Visitor(url, TOKEN, session)

    return visit


def subscriptions(client):
    """Return the topics that the page's process listens to."""
    found = client.node.get_subscriber_names_and_types_by_node('vlm_web', '/')
    return {name for name, _ in found}


def clients(client):
    found = client.node.get_client_names_and_types_by_node('vlm_web', '/')
    return {name for name, _ in found}


async def look(page, *names):
    """Look at cameras until pictures have come."""
    await page.until(
        'facts', lambda facts: [c['name'] for c in facts['cameras']] == ['raw', 'packed']
    )
    await page.say(kind='look', cameras=list(names))
    await page.until('feeds', lambda m: m['feeds'] and all(map(has_come, m['feeds'])))


def has_come(feed):
    return feed['silence_s'] is not None


async def spin_until(client, condition):
    async def spin():
        client.spin(0.02)
        await asyncio.sleep(0)

    patience = Patience(45.0)
    while not condition():
        assert not patience.is_over()
        await spin()


def test_what_nobody_looks_at_is_not_subscribed_to(page, robot):
    client = robot.client
    client.until(lambda: ('vlm_web', '/') in client.node.get_node_names_and_namespaces())
    client.spin(0.5)
    assert subscriptions(client) == set()
    assert clients(client) == set()
    told = {'/vlm/state', '/diagnostics', '/vlm/answer', '/vlm/watch_states', '/vlm/event'}

    async def visit():
        async with page() as served:
            async with served.page() as opened:
                await spin_until(client, lambda: told <= subscriptions(client))
                assert not any(name.startswith('/robot') for name in subscriptions(client))
                await look(opened, 'packed')
                await spin_until(
                    client, lambda: '/robot/image_raw/compressed' in subscriptions(client)
                )
                assert '/robot/image_raw' not in subscriptions(client)
            await spin_until(client, lambda: not subscriptions(client) and not clients(client))

    run(visit())


def test_compressed_images_pass_through_byte_by_byte(page, robot):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage

    client, sent = robot.client, set()
    subscription = client.node.create_subscription(
        CompressedImage,
        '/robot/image_raw/compressed',
        lambda message: sent.add(bytes(message.data)),
        qos_profile_sensor_data,
    )

    async def visit():
        async with page() as served, served.page() as opened:
            await look(opened, 'packed')
            await spin_until(client, lambda: sent)
            shown = set()
            async with served.get('camera/packed') as response:
                for _ in range(5):
                    shown.add(await next_picture(response))
            await spin_until(client, lambda: len(shown & sent) >= 3)

    run(visit())
    client.node.destroy_subscription(subscription)


@pytest.mark.parametrize('camera', ['raw', 'packed'])
def test_an_answer_shows_the_very_frame_that_it_is_about_with_all_its_pixels(page, camera):
    """A busy machine loses frames, each process others: then it is asked once more."""

    async def visit():
        async with page() as served, served.page() as opened:
            await look(opened, camera)
            patience = Patience(20.0)
            while True:
                await opened.ask(cameras=[camera])
                answer = await opened.hear('answer')
                assert answer['answer']['text'] == '1 seen'
                (picture,) = answer['pictures']
                if picture == {'kept': True, 'offset_s': 0.0, 'is_whole': True}:
                    break
                assert not patience.is_over(), picture
            async with served.get(f'picture/{answer["number"]}/0') as response:
                data = np.frombuffer(await response.read(), np.uint8)
                return cv2.imdecode(data, cv2.IMREAD_COLOR).shape

    assert run(visit()) == (720, 960, 3)


def test_a_question_is_cancelled_when_its_page_closes(page, robot):
    client = robot.client

    async def visit():
        async with page() as served:
            async with served.page() as opened:
                await look(opened, 'packed')
                request_id = (await opened.ask(question='long', cameras=['packed']))['request_id']
                await opened.hear('delta')
            await spin_until(client, lambda: any(c.done for c in client.chunks_of(request_id)))
            return client.chunks_of(request_id)[-1]

    assert run(visit()).error_code == 302


def test_a_failure_has_its_code_and_its_sentence(page):
    async def visit():
        async with page() as served, served.page() as opened:
            await look(opened, 'packed')
            await opened.ask(choices=['same', 'same'])
            return (await opened.hear('answer'))['answer']

    answer = run(visit())
    assert (answer['error_code'], answer['error_code_name']) == (100, 'BAD_REQUEST')
    assert answer['finish_reason_name'] == 'ERROR'
    assert 'same' in answer['message']


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'web.port': 70000}, 'web.port takes a whole number from 0 to 65535, not 70000'),
        ({'web.host': "''"}, 'web.host: an address or a name is wanted'),
        ({'web.vlm': 'a b'}, "web.vlm: 'a b' is no name of a node"),
        ({'web.token_file': '/nowhere/token'}, 'cannot read the token in /nowhere/token'),
        ({'web.host': '203.0.113.7'}, 'cannot listen at 203.0.113.7 port 8080'),
    ],
)
def test_what_cannot_be_served_ends_the_process_with_one_line(robot, parameters, said):
    process = robot.start('web_main', parameters)
    assert process.wait() == 1
    assert said in process.output()
    assert 'Traceback' not in process.output()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_page_open(robot, number):
    process = robot.start('web_main', {'web.port': 0})
    process.wait_for_output('?token=')
    url, token = re.search(r'the page is at (\S+)\?token=(\S+)', process.output()).groups()
    assert len(token) >= bounds.MIN_TOKEN_CHARS

    async def visit():
        async with ClientSession() as session, Visitor(url, token, session).page():
            process.signal(number)
            await until(lambda: process.process.poll() is not None)

    run(visit())
    assert process.wait() == 0
    assert 'Traceback' not in process.output()


def test_a_page_whose_ros_side_has_ended_ends_too(ros_domain):
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from edge_vlm_ros.nodes.ros_thread import RosThread

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    with warnings.catch_warnings():
        # The message generator, imported with the first message, imports old modules.
        warnings.simplefilter('ignore', DeprecationWarning)
        node = rclpy.create_node('broken', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    told, ended = [], threading.Event()

    def on_end(problem):
        told.append(problem)
        ended.set()

    thread = RosThread(executor, on_end)
    node.create_timer(0.01, lambda: {}['not there'])
    thread.wake()
    assert ended.wait(30)
    assert told == ["KeyError: 'not there'"]
    thread.stop()
    node.destroy_node()
    executor.shutdown()
    context.try_shutdown()
