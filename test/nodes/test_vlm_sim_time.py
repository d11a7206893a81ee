"""The vlm node in simulated time: bags, loops, and a clock that stands still."""

from __future__ import annotations

import time

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SECOND = 10**9
START_NS = 1000 * SECOND
"""Where the bag begins: far from the time of day."""

SCRIPT = """
answers:
  - question: 'long'
    answer: 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen'
  - answer: 'I see {images} images.'
faults:
  - {at: decode, kind: hang, question: 'long', token: 3, seconds: 0.5}
latency: {decode_s: 0.05}
"""


class BagPlayer:
    """Publishes /clock, and images with its stamps, as a bag that is played does.

    Args:
        client: Whose node publishes, while it spins.
        rate: Seconds of the bag in one second.
    """

    PERIOD_S = 0.02

    def __init__(self, client, rate=3.0):
        from rosgraph_msgs.msg import Clock

        self.now_ns = START_NS
        self.rate = rate
        self._message = Clock()
        self._publisher = client.node.create_publisher(Clock, '/clock', 10)
        self._last_s = time.monotonic()
        client.node.create_timer(self.PERIOD_S, self._tick)
        self.camera = client.project(clock=lambda: self.now_ns)

    def _tick(self):
        now_s = time.monotonic()
        # Not more than a step: what the test's own process lost must not be a jump forward.
        step_s = min(now_s - self._last_s, 5 * self.PERIOD_S)
        self._last_s = now_s
        self.now_ns += round(step_s * self.rate * SECOND)
        clock = self._message.clock
        clock.sec, clock.nanosec = divmod(self.now_ns, SECOND)
        self._publisher.publish(self._message)


def stamp_ns(header):
    return header.stamp.sec * SECOND + header.stamp.nanosec


def time_message(time_ns):
    from builtin_interfaces.msg import Time

    return Time(sec=time_ns // SECOND, nanosec=time_ns % SECOND)


@pytest.fixture(scope='module')
def player(robot):
    parameters = {
        'chip': 'scripted',
        'model': robot.script(SCRIPT),
        'use_sim_time': 'true',
        'max_age_s': 5.0,
        'cameras.camera.buffer.seconds': 30.0,
    }
    player = BagPlayer(robot.client)
    robot.node = robot.vlm(parameters)
    robot.client.until_state('ready')
    robot.client.until_frames()
    return player


@pytest.fixture
def client(robot, player):
    """Give the client, with the bag playing and frames coming."""
    player.rate, player.camera.is_on = 3.0, True
    robot.client.until_frames()
    return robot.client


def test_stamps_and_ages_are_those_of_the_bag(client, player):
    client.spin(1.0)
    asked_ns = player.now_ns
    answer = client.ask('see', last_seconds=2.0, max_frames=4)
    assert answer.error_code == 0, answer.message
    shown = [stamp_ns(frame.header) for frame in answer.frames]
    assert len(shown) == 4
    assert set(shown) <= set(player.camera.stamps)
    assert stamp_ns(answer.header) == shown[-1]
    # Two seconds of the bag, which are less than one of the day; counted by arrival, so that a
    # frame that was taken in late may still be among them.
    assert 1 * SECOND < shown[-1] - shown[0] < 2.7 * SECOND
    for frame in answer.frames:
        asked_by_age_ns = stamp_ns(frame.header) + frame.age_s * SECOND
        assert asked_ns - SECOND < asked_by_age_ns < player.now_ns + SECOND
    client.diagnostics.clear()
    client.until(lambda: bool(client.diagnostics))
    assert START_NS < stamp_ns(client.diagnostics[-1].header) <= player.now_ns


def test_as_of_and_max_age_count_in_the_time_of_the_bag(client, player):
    client.spin(1.0)
    wanted = player.camera.stamps[-5]
    as_of = time_message(wanted)
    answer = client.ask('see', as_of=as_of)
    assert answer.error_code == 0, answer.message
    # A frame may be lost on its way; the next one is 0.3 s of the bag away.
    assert abs(stamp_ns(answer.header) - wanted) < 0.7 * SECOND
    player.camera.is_on = False
    client.spin(1.0)  # 3 s of the bag
    stale = client.ask('see', max_age_s=2.0)
    assert stale.error_code == stale.ERROR_STALE_FRAME, stale.message


def test_a_bag_that_starts_again_leaves_nothing_of_before(client, player):
    client.spin(1.0)
    before = client.ask('see')
    assert before.error_code == 0, before.message
    # The clock alone jumps first: the frames of before are the future now, and must go.
    player.camera.is_on = False
    client.spin(0.3)
    player.now_ns = again_ns = START_NS - 100 * SECOND
    client.until(lambda: buffered(client) == 0, what='the empty buffer')
    gone = client.ask('see')
    assert gone.error_code == gone.ERROR_NO_FRAME, gone.message
    player.camera.is_on = True
    client.until_frames()
    after = client.ask('see', last_seconds=20.0, max_frames=8)
    assert after.error_code == 0, after.message
    assert len(after.frames) > 1
    assert after.stats.window_truncated
    for frame in after.frames:
        assert again_ns <= stamp_ns(frame.header) <= player.now_ns
        assert frame.age_s <= (player.now_ns - again_ns) / SECOND


def test_loop_after_loop_every_question_is_answered_from_its_own_loop(client, player):
    for turn in range(3):
        # No pause: the first images may overtake the clock, and the other way round.
        player.now_ns = begin_ns = START_NS - (200 + 100 * turn) * SECOND
        shown = len(player.camera.stamps)
        client.until(lambda shown=shown: len(player.camera.stamps) > shown + 5)
        client.spin(0.2)
        answer = client.ask('see', last_seconds=20.0, max_frames=8)
        assert answer.error_code == 0, answer.message
        assert all(stamp_ns(f.header) >= begin_ns for f in answer.frames), turn


def buffered(client):
    values = {pair.key: pair.value for pair in client.status('camera camera').values}
    return int(values['buffered_frames'])


def test_a_clock_that_stands_still_holds_up_neither_cancel_nor_deadline(client, player):
    player.rate = 0.0
    client.spin(0.2)
    late = client.ask('a long one', timeout_s=0.4, request_id='late')
    assert late.error_code == late.ERROR_DEADLINE
    assert late.text
    assert late.stats.total_s > 0.3

    future = client.ask_later('a long one', request_id='cancelled')
    client.until(lambda: bool(client.chunks_of('cancelled')))
    assert client.cancel('cancelled').cancelled == 1
    assert client.result(future).answer.error_code == late.ERROR_CANCELLED

    answer = client.ask('see', request_id='whole')
    assert answer.error_code == 0, answer.message
    assert answer.stats.total_s > 0
    for request_id in ('late', 'cancelled', 'whole'):
        assert sum(chunk.done for chunk in client.all_chunks_of(request_id)) == 1
    # Diagnostics go by steady time.
    client.diagnostics.clear()
    client.until(lambda: len(client.diagnostics) >= 2, 10, 'diagnostics')


def test_frames_of_a_paused_bag_grow_old_and_the_pause_is_named(client, player):
    client.spin(1.0)
    assert client.ask('see').error_code == 0
    player.rate, player.camera.is_on = 0.0, False
    client.until(
        lambda: 'simulated time has stood still' in client.status('camera camera').message,
        what='the cause',
    )
    assert client.level('camera camera') == 1
    client.spin(2.0)  # Four seconds in all, at least.
    paused = client.ask('see', max_age_s=3.0)
    assert paused.error_code == paused.ERROR_STALE_FRAME, paused.message
    assert 'simulated time has stood still' in paused.message
    assert 'paused' in paused.message
    old = client.ask('see', max_age_s=1e6)
    assert old.error_code == 0
    assert old.frames[0].age_s > 3.0


def test_a_camera_on_the_time_of_day_is_answered_under_simulated_time_and_told(client, player):
    player.camera.set_clock(time.time_ns)
    try:
        client.until(
            lambda: 'lives in simulated time' in client.status('camera camera').message,
            what='the cause',
        )
        assert client.level('camera camera') == 1
        clip = client.ask('see', last_seconds=2.0, max_frames=4)
        assert clip.error_code == 0, clip.message
        assert len(clip.frames) == 4
        assert all(0 <= frame.age_s < 5 for frame in clip.frames)
        past = client.ask('see', as_of=time_message(player.now_ns - SECOND))
        assert past.error_code == past.ERROR_STALE_FRAME
        assert 'lives in simulated time' in past.message
    finally:
        player.camera.set_clock(lambda: player.now_ns)


def test_a_node_on_the_time_of_day_says_that_the_clocks_differ(client, other_robot):
    """Frames of a bag without use_sim_time, over and over: answered as they come, and told."""
    other = other_robot.client
    other.project(clock=lambda: START_NS + time.monotonic_ns() % SECOND)
    other_robot.vlm({'chip': 'scripted', 'model': other_robot.script(SCRIPT)})
    other.until_state('ready')
    other.until(
        lambda: (
            other.status('camera camera') is not None
            and 'use_sim_time' in other.status('camera camera').message
        ),
        what='the cause',
    )
    assert other.level('camera camera') == 1
    other.spin(2.0)
    answer = other.ask('see', last_seconds=2.0, max_frames=8)
    assert answer.error_code == 0, answer.message
    assert len(answer.frames) > 4, 'stamps that jump back empty no buffer'
    assert all(frame.age_s < 5 for frame in answer.frames)
