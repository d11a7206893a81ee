"""Many questions at once: each ends once, with its own answer or a clear refusal."""

from __future__ import annotations

import threading

import pytest

SCRIPT = """
answers: [{answer: 'I see {images} images of {means}.'}]
latency: {decode_s: 0.02}
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
        lambda: {p.key: p.value for p in client.status('queue').values}['open'] == '0',
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
