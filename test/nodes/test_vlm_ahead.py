"""What is made ready before anybody asks, through the node, its model process and real topics."""

from __future__ import annotations

import os
import signal
from array import array

import pytest
from support.asker import model_processes_of

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = "answers: [{answer: '{images} images of {means}.'}]"
DARK, DAMAGED, MIDDLE, BRIGHT = 20, 60, 120, 200


class Watched:
    """A robot whose camera shows what the test says, and whose node works ahead."""

    def __init__(self, robot, script=SCRIPT, camera=None, name='camera', **parameters):
        self.robot, self.client = robot, robot.client
        self.camera = camera or self.client.project()
        self.node = robot.vlm(
            {
                'chip': 'scripted',
                'model': robot.script(script),
                'ahead_mode': 'prefill',
                'ahead.min_period_s': 0.0,
                'max_age_s': 5.0,
                **parameters,
            }
        )
        self.client.until_state('ready', 90)
        self.client.until_frames(name)

    def value(self, key):
        return {pair.key: pair.value for pair in self.client.status('ahead').values}[key]

    @property
    def ready(self):
        """The frames that are ready, by their stamps in seconds."""
        status = self.client.status('ahead')
        if status is None:
            return []
        listed = {pair.key: pair.value for pair in status.values}['ready']
        return [float(each.split()[1]) for each in listed.split(', ') if each]

    def until_ready(self, frames=1, since=0.0):
        """Wait until so many frames are ready, the newest of them of no earlier than a time."""
        self.client.until(
            lambda: len(self.ready) == frames and self.ready[-1] >= since,
            what=f'{frames} frames made ready',
        )
        return self.ready

    def show(self, brightness):
        """Show something, and wait until the camera has sent it; return when it began."""
        since = self.client.node.get_clock().now().nanoseconds / 1e9
        self.camera.show(brightness)
        sent = len(self.camera.stamps)
        self.client.until(lambda: len(self.camera.stamps) > sent + 2, what='a picture')
        return since

    def ask(self, **fields):
        answer = self.client.ask('see', **fields)
        assert answer.error_code == 0, answer.message
        return answer


class Pictures:
    """A camera whose pictures the test draws.

    Args:
        client: Whose node publishes, while it spins.
        kind: Of the messages.
        topic: Where.
        draw: Makes a message of a brightness.
    """

    def __init__(self, client, kind, topic, draw):
        self.stamps = []
        self.is_on = True
        self._client = client
        self._draw = draw
        self._publisher = client.node.create_publisher(kind, topic, 5)
        self.show(128)
        client.node.create_timer(0.1, self._send)

    def show(self, brightness):
        self._message = self._draw(brightness)

    def _send(self):
        if not self.is_on:
            return
        stamp = self._client.node.get_clock().now().to_msg()
        self._message.header.stamp = stamp
        self.stamps.append(stamp)
        self._publisher.publish(self._message)


def means(answer):
    """Return the brightnesses that an answer tells."""
    return answer.text.rstrip('.').partition(' of ')[2].split(', ')


def test_a_still_is_ready_before_the_question_and_a_change_reaches_its_own(other_robot):
    watched = Watched(other_robot)
    watched.until_ready(since=watched.show(DARK))
    dark = watched.ask()
    assert dark.ahead == dark.AHEAD_PREFIX
    assert dark.stats.cached_prompt_tokens > 0
    assert dark.stats.encode_s == 0
    assert 0 <= dark.scene_checked_age_s < 2.0
    assert dark.frames[0].age_s >= dark.scene_checked_age_s
    assert not dark.approximate
    seen = [means(dark)]
    for brightness in (BRIGHT, DARK, BRIGHT, DARK):
        watched.show(brightness)
        seen.append(means(watched.ask()))
    assert seen[0] == seen[2] == seen[4]
    assert seen[1] == seen[3] != seen[0]


def test_an_unchanged_scene_is_made_ready_once(other_robot):
    watched = Watched(other_robot)
    before = watched.until_ready()
    watched.client.spin(3.0)
    assert watched.ready == before
    assert int(watched.value('refreshes')) <= 2
    assert int(watched.value('looks')) > 5
    answers = [watched.ask() for _ in range(3)]
    assert {answer.ahead for answer in answers} == {answers[0].AHEAD_PREFIX}
    assert len({answer.frames[0].header.stamp.nanosec for answer in answers}) == 1
    watched.client.until(lambda: watched.value('hits') == '3', what='three hits')
    assert watched.value('misses') == '0'


def test_a_dead_camera_is_not_answered_from_what_is_ready(other_robot):
    watched = Watched(other_robot, max_age_s=1.0, frame_wait_s=0.2)
    watched.until_ready()
    watched.camera.is_on = False
    watched.client.spin(1.5)
    refused = watched.client.ask('see')
    assert refused.error_code == refused.ERROR_STALE_FRAME
    watched.camera.is_on = True
    watched.client.until(lambda: watched.client.ask('see').error_code == 0, what='frames again')


def test_a_window_shows_what_has_changed_in_its_order(other_robot):
    watched = Watched(other_robot, **{'ahead.frames': 3, 'ahead.max_period_s': 0.0})
    first = watched.until_ready(since=watched.show(DARK), frames=1 + (DARK != 128))
    watched.until_ready(3, since=watched.show(BRIGHT))
    answer = watched.ask()
    assert answer.ahead == answer.AHEAD_PREFIX
    shown = means(answer)
    assert len(set(shown)) == len(answer.frames) == 3
    assert first == watched.ready[:2]
    # A change at which the window is full: it is shown, whatever is ready.
    watched.show(MIDDLE)
    assert means(watched.ask())[-1] not in shown


def test_a_conversation_goes_on_from_what_is_ready(other_robot):
    watched = Watched(other_robot)
    watched.until_ready(since=watched.show(DARK))
    first = watched.ask(session_id='chat')
    assert first.ahead == first.AHEAD_PREFIX
    second = watched.ask(session_id='chat')
    assert [each.header for each in second.frames] == [each.header for each in first.frames]
    assert second.stats.cached_prompt_tokens > first.stats.prompt_tokens
    assert second.scene_checked_age_s == -1
    watched.until_ready(since=watched.show(BRIGHT))
    third = watched.ask(session_id='chat', cameras=['camera'])
    assert means(third)[0] == means(first)[0]
    assert means(third)[1] != means(first)[0]
    assert third.ahead == third.AHEAD_PREFIX


def test_a_hint_makes_the_newest_frame_ready(other_robot):
    from edge_vlm_ros.msg import Hint

    watched = Watched(other_robot)
    before = watched.until_ready()
    publisher = watched.client.node.create_publisher(Hint, 'vlm/hint', 10)
    watched.client.until(lambda: publisher.get_subscription_count() == 1, what='the subscription')

    def hint(**fields):
        """Hint until the node has heard it: nobody sends a hint again that was lost."""

        def is_heard():
            publisher.publish(Hint(**fields))
            watched.client.spin(0.5)
            return int(watched.value('hints')) > heard

        heard = int(watched.value('hints'))
        watched.client.until(is_heard, what='the hint')

    hint()
    watched.until_ready(since=before[-1] + 0.001)
    assert watched.ask().ahead == 2  # AHEAD_PREFIX
    hint(cameras=['side'])
    watched.client.until(lambda: 'side' in watched.value('problem'), what='the reason')
    assert watched.client.level('ahead') == 1


def test_features_alone_can_be_made_ready(other_robot):
    watched = Watched(other_robot, ahead_mode='encode')
    watched.client.until(lambda: int(watched.value('encodes')) > 0, what='work ahead')
    answer = watched.ask()
    assert answer.ahead == answer.AHEAD_ENCODED
    assert answer.stats.encode_s == 0
    assert watched.ready == []


def test_switched_off_it_costs_nothing(other_robot):
    watched = Watched(other_robot, ahead_mode="'off'")
    watched.client.spin(1.0)
    answer = watched.ask()
    assert answer.ahead == answer.AHEAD_NONE
    assert answer.scene_checked_age_s == -1
    names = [name for name, _ in watched.client.node.get_topic_names_and_types()]
    assert '/vlm/hint' not in names
    reported = {status.name for array in watched.client.diagnostics for status in array.status}
    assert reported
    assert not any('ahead' in name for name in reported)


def test_cameras_that_are_watched_together_are_ready_together(other_robot):
    rear = other_robot.client.project('rear/image_raw', brightness=DARK)
    watched = Watched(
        other_robot,
        camera=other_robot.client.project('front/image_raw', brightness=BRIGHT),
        name='front',
        camera_names='[front,rear]',
        **{'ahead.cameras': "['front+rear']"},
    )
    watched.until_ready(2)
    both = watched.ask(cameras=['front', 'rear'])
    assert both.ahead == both.AHEAD_PREFIX
    assert [frame.camera for frame in both.frames] == ['front', 'rear']
    bright, dark = means(both)
    rear.show(MIDDLE)
    watched.show(BRIGHT)
    changed = watched.ask(cameras=['front', 'rear'])
    assert means(changed)[0] == bright
    assert means(changed)[1] not in {bright, dark}


def test_a_fault_in_work_ahead_ends_no_question(other_robot):
    """The first images are encoded when the model is loaded, to measure what that costs."""
    script = f'{SCRIPT}\nfaults: [{{at: encode, kind: error, after: 2, times: 3}}]'
    watched = Watched(other_robot, script)
    watched.client.until(lambda: int(watched.value('failures')) > 0, what='a failure')
    before = int(watched.value('failures'))
    answers = [watched.client.ask('see') for _ in range(4)]
    assert answers[-1].error_code == 0
    watched.until_ready(since=watched.show(DARK))
    assert watched.ask().ahead == answers[-1].AHEAD_PREFIX
    assert int(watched.value('failures')) >= before


def test_pictures_that_come_compressed_are_compared(other_robot):
    cv2 = pytest.importorskip('cv2')
    import numpy as np
    from sensor_msgs.msg import CompressedImage

    def jpeg(brightness):
        file = cv2.imencode('.jpg', np.full((480, 640), brightness, np.uint8))[1]
        return CompressedImage(format='jpeg', data=array('B', file.tobytes()))

    watched = Watched(
        other_robot,
        camera=Pictures(other_robot.client, CompressedImage, '/jpegs', jpeg),
        **{'cameras.camera.transport': 'compressed', 'cameras.camera.topic': '/jpegs'},
    )
    watched.until_ready(since=watched.show(DARK))
    before = watched.ready
    dark = watched.ask()
    assert dark.ahead == dark.AHEAD_PREFIX
    watched.client.spin(1.0)
    assert watched.ready == before
    watched.until_ready(since=watched.show(BRIGHT))
    bright = watched.ask()
    assert bright.ahead == bright.AHEAD_PREFIX
    assert means(bright) != means(dark)


def test_a_picture_that_cannot_be_decoded_is_never_ready_and_costs_no_answer(other_robot):
    """It is whole by its header and its end, so that only a decoder sees the damage."""
    cv2 = pytest.importorskip('cv2')
    import numpy as np
    from sensor_msgs.msg import CompressedImage

    def png(brightness):
        pixels = np.random.default_rng(0).integers(0, 40, (480, 640), np.uint8) + brightness
        file = bytearray(cv2.imencode('.png', pixels.astype(np.uint8))[1].tobytes())
        if brightness == DAMAGED:
            for place in range(200, len(file) - 200, 50):
                file[place] ^= 0xFF
        return CompressedImage(format='png', data=array('B', bytes(file)))

    camera = Pictures(other_robot.client, CompressedImage, '/pngs', png)
    watched = Watched(
        other_robot,
        camera=camera,
        max_age_s=100.0,
        **{'cameras.camera.transport': 'compressed', 'cameras.camera.topic': '/pngs'},
    )
    before = watched.until_ready(since=watched.show(DARK))
    dark = watched.ask()
    watched.show(DAMAGED)
    camera.is_on = False
    watched.client.spin(1.0)
    assert watched.ready == before
    assert means(watched.ask()) == means(dark)
    camera.is_on = True
    watched.until_ready(since=watched.show(BRIGHT))
    assert means(watched.ask()) != means(dark)


def test_the_next_model_process_makes_ready_what_the_last_one_had(other_robot):
    watched = Watched(other_robot)
    watched.until_ready(since=watched.show(DARK))
    dark = watched.ask()
    (pid,) = model_processes_of(watched.node.pid)
    os.kill(pid, signal.SIGKILL)
    watched.client.until(lambda: not watched.ready, what='the end of the process')
    watched.client.until_state('ready', 90)
    watched.until_ready()
    again = watched.ask()
    assert again.ahead == again.AHEAD_PREFIX
    assert again.text == dark.text


def test_a_node_that_is_not_active_makes_nothing_ready_and_begins_anew_when_it_is(other_robot):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    watched = Watched(other_robot)
    client = watched.client
    watched.until_ready(since=watched.show(DARK))
    change = client.node.create_client(ChangeState, 'vlm/change_state')
    client.until(change.service_is_ready, what='the service')

    def go(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert client.result(change.call_async(request)).success

    go(Transition.TRANSITION_DEACTIVATE)
    client.diagnostics.clear()
    client.until(lambda: client.status('engine') is not None, what='diagnostics')
    assert client.status('ahead') is None
    go(Transition.TRANSITION_ACTIVATE)
    client.until(lambda: watched.ready, what='frames made ready')
    assert watched.ask().ahead == 2  # AHEAD_PREFIX


def test_the_cpu_engine_says_what_it_says_of_the_same_picture_unprepared(other_robot):
    from sensor_msgs.msg import Image

    def picture(brightness):
        """Return a picture of two colours."""
        image = Image(encoding='rgb8', width=112, height=112, step=336)
        row = bytes([brightness, 40, 40]) * 56 + bytes([40, 40, 255 - brightness]) * 56
        image.data = array('B', row * 112)
        return image

    watched = Watched(
        other_robot,
        camera=Pictures(other_robot.client, Image, 'image_raw', picture),
        chip='cpu',
        model='demo',
    )
    question = 'Describe what you see.'
    for brightness in (DARK, BRIGHT):
        watched.until_ready(since=watched.show(brightness))
        warm = watched.client.ask(question)
        assert warm.error_code == 0, warm.message
        assert warm.ahead == warm.AHEAD_PREFIX
        assert warm.stats.encode_s == 0
        cold = watched.client.ask(question, images=[picture(brightness)])
        assert cold.ahead == cold.AHEAD_NONE
        assert cold.text == warm.text
        assert warm.stats.cached_prompt_tokens > cold.stats.cached_prompt_tokens
