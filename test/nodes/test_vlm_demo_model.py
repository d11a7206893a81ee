"""The vlm node with the model that ships, on the CPU: camera, node and client apart."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope='module')
def client(robot):
    robot.camera({'width': 320})
    robot.vlm({'chip': 'cpu', 'model': 'demo', 'max_age_s': 5.0})
    robot.client.until_state('ready', 90)
    robot.client.until_frames()
    return robot.client


def test_a_still_is_described_word_by_word(client):
    answer = client.describe(request_id='still')
    assert answer.error_code == 0, answer.message
    assert answer.finish_reason == answer.FINISH_STOP
    assert (answer.model, answer.chip) == ('demo', 'cpu')
    chunks = client.all_chunks_of('still')
    assert len(chunks) > 2
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert answer.text.strip()
    stats = answer.stats
    assert stats.vision_tokens == 16
    assert stats.prompt_tokens > stats.vision_tokens
    parts = stats.queue_s + stats.decode_images_s + stats.encode_s + stats.prefill_s
    assert parts + stats.decode_s <= stats.total_s * 1.05


def solid(size, *rgb):
    from sensor_msgs.msg import Image

    image = Image(encoding='rgb8', width=size, height=size, step=3 * size)
    image.data.frombytes(bytes(rgb) * size * size)
    return image


def test_closed_answers_are_restricted_and_as_probable_as_the_model_says(client):
    """The same question over the service, with the choices in any order and one by one."""
    question = 'What color is the box?'
    colors = ['red', 'blue', 'green', 'yellow', 'red and blue']
    image = solid(112, 200, 30, 30)
    first, second = (
        client.ask(question, images=[image], choices=choices) for choices in (colors, colors[::-1])
    )
    assert (first.error_code, first.finish_reason) == (0, first.FINISH_STOP), first.message
    assert first.choice in colors
    assert first.text == first.choice == second.choice
    assert first.choice_valid
    assert 1 / len(colors) < first.choice_probability <= 1.0
    assert first.choice_probability == pytest.approx(second.choice_probability, abs=2e-3)
    others = [color for color in colors if color != first.choice]
    rest = client.ask(question, images=[image], choices=others)
    assert rest.choice in others, 'always one of them'
    yes_no = client.ask('Is there a box?', images=[image], yes_no=True)
    assert yes_no.choice in {'yes', 'no'}
    assert yes_no.choice_probability >= 0.5


def test_a_clip_of_eight_frames_takes_eight_images(client):
    client.spin(1.5)
    answer = client.ask('What is moving?', last_seconds=4.0, max_frames=8)
    assert answer.error_code == 0, answer.message
    assert len(answer.frames) == 8
    assert answer.stats.vision_tokens == 8 * 16


def test_the_same_question_about_the_same_image_has_the_same_answer(client):
    from array import array

    from sensor_msgs.msg import Image

    image = Image(encoding='rgb8', width=112, height=112, step=336)
    image.data = array('B', bytes(range(256)) * 147)
    answers = [client.ask('Describe what you see.', images=[image]) for _ in range(2)]
    assert answers[0].error_code == 0, answers[0].message
    assert answers[0].text == answers[1].text


def test_engine_and_family_options_are_taken(other_robot):
    options = "['threads=1','resize=fast','max_tiles=1']"
    other_robot.vlm({'chip': 'cpu', 'model': 'demo', 'engine_options': options})
    other_robot.client.until_state('ready', 90)


@pytest.mark.parametrize('option', ['hurry=1', 'threads=many', 'resize=nicely', 'max_tiles=few'])
def test_an_option_that_makes_no_sense_fails_the_start_with_its_name(other_robot, option):
    node = other_robot.vlm({'chip': 'cpu', 'model': 'demo', 'engine_options': f"['{option}']"})
    assert node.wait(60) == 1
    name, _, value = option.partition('=')
    assert name in node.output()
    assert value in node.output()
    assert 'Traceback' not in node.output()


def test_a_watch_speaks_up_about_what_is_true_with_its_probability(client):
    """A red box stands in the way all through the clip."""
    from edge_vlm_ros.msg import WatchEvent, WatchSpec
    from edge_vlm_ros.srv import Unwatch, Watch

    events = []
    client.node.create_subscription(WatchEvent, 'vlm/event', events.append, 10)
    watch = client.node.create_client(Watch, 'vlm/watch')
    unwatch = client.node.create_client(Unwatch, 'vlm/unwatch')
    client.until(lambda: watch.service_is_ready() and unwatch.service_is_ready())
    spec = WatchSpec(name='way', question='Is the way ahead clear?', when=['no'], period_s=0.2)
    assert client.result(watch.call_async(Watch.Request(watch=spec))).success
    client.until(lambda: events, what='an event')
    begin = events[0]
    assert (begin.kind, begin.verdict) == (WatchEvent.KIND_BEGIN, 'no')
    assert 0.5 < begin.probability <= 1.0
    assert [frame.camera for frame in begin.frames] == ['camera']
    assert client.result(unwatch.call_async(Unwatch.Request(name='way'))).removed == 1
    client.until(lambda: events[-1].kind == WatchEvent.KIND_END, what='its end')
    assert events[-1].event_id == begin.event_id
