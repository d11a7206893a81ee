"""Many questions at once: each ends once, with its own answer or a clear refusal."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from support.long_answer import long_words

SCRIPT = f"""
answers:
  - {{question: long, answer: '{long_words(42)}'}}
  - {{question: endless, answer: '{long_words(280)}'}}
  - {{question: slow, answer: 'one two three four five six seven eight nine ten eleven twelve'}}
  - {{answer: 'I see {{images}} images of {{means}}.'}}
latency: {{decode_s: 0.02}}
"""
PEOPLE, EACH, QUEUE = 3, 10, 4
pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope='module')
def client(robot):
    robot.node = robot.vlm(
        {'chip': 'scripted', 'model': robot.script(SCRIPT), 'queue_size': QUEUE}
    )
    robot.client.until_state('ready')
    return robot.client


def brightness_of(number):
    return 8 * number


def seen(answer):
    """Return the mean brightness the model was shown, on the scale of its own input."""
    assert answer.text.startswith('I see 1 images of '), answer.text
    return float(answer.text.rpartition(' ')[2].rstrip('.'))


def test_three_people_ask_much_at_once_and_there_is_room_for_four(client, robot):
    dark, bright = (seen(client.ask('see', images=[client.grey(b)])) for b in (0, 250))
    people = [robot.new_client() for _ in range(PEOPLE)]
    for person in people:
        person.until(person._ask.service_is_ready, what='service ask')
    answers = {}
    start = threading.Barrier(PEOPLE)

    def ask_all(first):
        person = people[first // EACH]
        start.wait()
        futures = {
            number: person.ask_later(
                'see',
                request_id=f'n{number}',
                images=[person.grey(brightness_of(number), number * 10**9 + 7, f'f{number}')],
            )
            for number in range(first, first + EACH)
        }
        answers.update({n: person.result(future).answer for n, future in futures.items()})

    threads = [threading.Thread(target=ask_all, args=(EACH * i,)) for i in range(PEOPLE)]
    for thread in threads:
        thread.start()
    client.until(lambda: not any(thread.is_alive() for thread in threads), what='every reply')
    assert len(answers) == PEOPLE * EACH

    good = {n for n, answer in answers.items() if answer.error_code == 0}
    busy = {n for n, answer in answers.items() if answer.error_code == answer.ERROR_BUSY}
    assert good | busy == set(answers)
    assert len(good) >= QUEUE
    assert busy
    for number in answers:
        client.until(
            lambda number=number: any(c.done for c in client.chunks_of(f'n{number}')),
            what='final chunk',
        )
    client.spin(0.3)  # for what must not follow
    for number, answer in answers.items():
        assert answer.request_id == f'n{number}'
        chunks = client.chunks_of(f'n{number}')
        assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].error_code == answer.error_code
        assert ''.join(chunk.delta for chunk in chunks) == answer.text
        if number in busy:
            assert (answer.text, answer.frames) == ('', [])
            assert str(QUEUE) in answer.message
            continue
        (frame,) = answer.frames
        assert (frame.header.stamp.sec, frame.header.frame_id) == (number, f'f{number}')
        expected = dark + (bright - dark) * brightness_of(number) / 250
        assert abs(seen(answer) - expected) < 0.02
    # Nothing is left behind: the whole queue is free again.
    again = [client.ask_later('see', images=[client.grey(9)]) for _ in range(QUEUE)]
    assert [client.result(future).answer.error_code for future in again] == [0] * QUEUE
    client.until(
        lambda: values_of_queue(client)['open'] == '0',
        what='an empty queue in diagnostics',
    )
    assert client.level('queue') == 0


def test_twelve_goals_and_half_of_them_cancelled(client):
    from edge_vlm_ros.action import Ask

    client.until(client.action.server_is_ready)
    # Lost feedback would look like a missing end: the goals go in groups that fit the queue.
    for group in range(3):
        goals = [
            Ask.Goal(question='see', request_id=f'g{group}{i}', images=[client.grey(60 * i)])
            for i in range(QUEUE)
        ]
        sent = [client.action.send_goal_async(goal) for goal in goals]
        handles = [client.result(future) for future in sent]
        assert all(handle.accepted for handle in handles)
        cancels = [handle.cancel_goal_async() for handle in handles[1::2]]
        results = [client.result(handle.get_result_async()).result for handle in handles]
        for future in cancels:
            client.result(future)
        for i, result in enumerate(results):
            answer = result.answer
            assert answer.request_id == f'g{group}{i}'
            assert answer.error_code in ({0} if i % 2 == 0 else {0, answer.ERROR_CANCELLED})
            assert result.success == (answer.error_code == 0)
            assert sum(chunk.done for chunk in client.all_chunks_of(f'g{group}{i}')) == 1


def values_of_queue(client):
    client.until(lambda: client.status('queue') is not None, what='diagnostics')
    return {pair.key: pair.value for pair in client.status('queue').values}


def test_of_three_hundred_callers_at_once_each_gets_a_reply(client, robot):
    from edge_vlm_ros.srv import Ask
    from rclpy.qos import QoSProfile

    number = 300
    before = int(values_of_queue(client)['turned_away'])
    people = [robot.new_client() for _ in range(2)]
    # Every reply goes to every client of the service: their own inboxes must be as large.
    asks = [
        person.node.create_client(Ask, 'ask', qos_profile=QoSProfile(depth=1000))
        for person in people
    ]
    for person, ask in zip(people, asks, strict=True):
        person.until(ask.service_is_ready, what='service ask')
    image = client.grey(9)
    futures = [
        (people[n % 2], asks[n % 2].call_async(Ask.Request(question='see', images=[image])))
        for n in range(number)
    ]
    answers = [person.result(future).answer for person, future in futures]
    codes = Counter(answer.error_code for answer in answers)
    assert set(codes) <= {0, answers[0].ERROR_BUSY}
    assert codes[0] >= QUEUE
    assert len({answer.request_id for answer in answers}) == number
    client.until(
        lambda: int(values_of_queue(client)['turned_away']) - before == number - codes[0],
        what='all who were turned away in diagnostics',
    )
    values = values_of_queue(client)
    assert (values['inbox'], values['policy']) == ('1000', 'queue')
    assert 1 < int(values['largest_burst']) <= number


def test_those_that_wait_see_their_turn_and_urgent_ones_come_first(client):
    from edge_vlm_ros.srv import Ask

    # The first one takes until it is cancelled, however late diagnostics come; until it has begun
    # an urgent one would go before it.
    futures = [client.ask_later('endless', request_id='first', images=[client.grey(9)])]
    client.until(lambda: bool(client.chunks_of('first')), what='its first words')
    futures += [
        client.ask_later(
            'slow',
            request_id=name,
            images=[client.grey(9)],
            priority=Ask.Request.PRIORITY_URGENT if name == 'urgent' else 0,
        )
        for name in ('later', 'urgent')
    ]
    client.until(
        lambda: values_of_queue(client)['order'] == 'first, urgent, later', what='the order'
    )
    client.cancel('first')
    first = client.result(futures[0]).answer
    assert first.error_code == first.ERROR_CANCELLED
    urgent = client.result(futures[2]).answer
    later = client.result(futures[1]).answer
    assert (urgent.error_code, later.error_code) == (0, 0)
    assert urgent.stats.queue_s < later.stats.queue_s
    for answer in (urgent, later):
        stats = answer.stats
        assert stats.queue_s > 0
        assert stats.run_s > 0
        assert abs(stats.queue_s + stats.run_s - stats.total_s) < 1e-3


def start(robot, policy, **parameters):
    node = {'chip': 'scripted', 'model': robot.script(SCRIPT), 'queue_size': 2, **parameters}
    robot.vlm({**node, 'queue_policy': policy})
    robot.client.until_state('ready')
    return robot.client


def begin(client, request_id, **fields):
    """Start an answer that outlasts some diagnostics; return its future once it speaks."""
    future = client.ask_later('long', request_id=request_id, images=[client.grey(9)], **fields)
    client.until(lambda: bool(client.chunks_of(request_id)), what='its first words')
    return future


def test_with_reject_nobody_waits(other_robot):
    client = start(other_robot, 'reject')
    running = begin(client, 'a')
    refused = client.ask('see', images=[client.grey(9)])
    assert refused.error_code == refused.ERROR_BUSY
    assert 'queue_policy is reject' in refused.message
    assert client.result(running).answer.error_code == 0
    assert client.ask('see', images=[client.grey(9)]).error_code == 0


def test_with_replace_oldest_a_newer_request_takes_the_place_of_one_that_waits(other_robot):
    client = start(other_robot, 'replace_oldest')
    running = begin(client, 'a')
    waiting = client.ask_later('see', request_id='b', images=[client.grey(9)])
    client.until(lambda: values_of_queue(client)['order'] == 'a, b', what='b in the queue')
    newer = client.ask_later('see', request_id='c', images=[client.grey(9)])
    replaced = client.result(waiting).answer
    assert replaced.error_code == replaced.ERROR_BUSY
    assert 'made room' in replaced.message
    assert replaced.stats.queue_s > 0
    assert not running.done()
    assert client.result(running).answer.error_code == 0
    assert client.result(newer).answer.error_code == 0
    for name in 'abc':
        assert sum(chunk.done for chunk in client.all_chunks_of(name)) == 1


def test_with_preempt_a_request_of_at_least_the_same_priority_takes_the_chip(other_robot):
    from edge_vlm_ros.srv import Ask

    client = start(other_robot, 'preempt')
    running = begin(client, 'a')
    background = Ask.Request.PRIORITY_BACKGROUND
    waits = client.ask_later('see', request_id='low', images=[client.grey(9)], priority=background)
    client.until(lambda: values_of_queue(client)['order'] == 'a, low', what='low in the queue')
    assert client.ask('see', images=[client.grey(9)]).error_code == 0
    preempted = client.result(running).answer
    assert preempted.error_code == preempted.ERROR_PREEMPTED
    assert preempted.finish_reason == preempted.FINISH_PREEMPTED
    assert preempted.text
    assert len(preempted.frames) == 1
    assert ''.join(chunk.delta for chunk in client.all_chunks_of('a')) == preempted.text
    assert client.result(waits).answer.error_code == 0


def test_of_a_camera_whose_newest_question_wins_older_ones_that_wait_end(other_robot):
    client = start(
        other_robot,
        'queue',
        queue_size=4,
        camera_names='[front]',
        **{'cameras.front.topic': '/image_raw', 'cameras.front.newest_question_wins': True},
    )
    client.project()
    client.until_frames('front')
    running = begin(client, 'a')
    older = client.ask_later('see', request_id='b')
    client.until(lambda: values_of_queue(client)['order'] == 'a, b', what='b in the queue')
    newer = client.ask_later('see', request_id='c')
    outdated = client.result(older).answer
    assert outdated.error_code == outdated.ERROR_BUSY
    assert 'newer question about the same camera' in outdated.message
    assert [frame.camera for frame in outdated.frames] == ['front']
    assert client.result(running).answer.error_code == 0
    assert client.result(newer).answer.error_code == 0
