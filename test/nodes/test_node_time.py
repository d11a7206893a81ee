"""Ages, clocks that are off, simulated time that stands still: pure numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import ManualClock

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.nodes.node_time import (
    CLOCK_SAMPLES,
    LONGEST_LATENCY_NS,
    CameraClock,
    Moment,
    NodeTime,
)

S = NS_PER_S
NOW = 1_000_000 * S


class Robot:
    """A node whose ROS time and steady time the test moves."""

    def __init__(self, *, is_simulated=False):
        self.ros, self.steady = ManualClock(NOW), ManualClock(S)
        self.is_simulated = is_simulated
        self.time = NodeTime(self.ros.now_ns, lambda: self.is_simulated, self.steady)
        self.camera = CameraClock()

    def advance(self, seconds, rate=1.0):
        self.steady.advance(seconds)
        self.ros.advance(seconds * rate)
        return self.time.now()

    def frame(self, stamp_ns):
        """Let a frame arrive now; return what its age is counted from."""
        now = self.time.now()
        return now.ros_ns - self.camera.latency_ns(now.ros_ns - stamp_ns), now.steady_ns

    def age_s(self, frame):
        taken_ns, received_ns = frame
        now = self.time.now()
        return now.age_s(taken_ns, (now.steady_ns - received_ns) / S)


@pytest.mark.parametrize(
    ('offset_s', 'age_s'),
    [
        (0.0, 8.0),
        (-0.3, 8.3),  # latency
        (20.0, 8.0),
        (-120.0, 8.0),
        (-3 * 3600.0, 8.0),
        (-999_990.0, 8.0),  # a boot clock
        (3 * 3600.0, 8.0),
        (-30.0, 38.0),  # nobody can tell: it counts as late
    ],
)
def test_a_frame_that_came_8_s_ago_is_8_s_old_whatever_the_clock_of_its_camera(offset_s, age_s):
    robot = Robot()
    for _ in range(40):
        frame = robot.frame(robot.ros.now_ns() + round(offset_s * S))
        robot.advance(0.1)
    robot.advance(7.9)
    assert robot.age_s(frame) == pytest.approx(age_s)
    assert robot.camera.offset_s == pytest.approx(offset_s)


def test_a_clock_of_the_node_that_is_set_makes_no_frame_younger():
    robot = Robot()
    frame = robot.frame(NOW)
    robot.steady.advance(5.0)
    robot.ros.advance(-3600.0)
    assert robot.age_s(frame) == 5.0
    robot.ros.advance(7200.0)
    assert robot.age_s(frame) == 3600.0, 'too old rather than too young'


def test_frames_of_a_foreign_clock_that_come_late_are_late():
    """A relay hangs for 6 s and then sends what it has; its clock is an hour behind."""
    robot = Robot()
    for _ in range(40):
        robot.frame(robot.ros.now_ns() - 3600 * S)
        robot.advance(0.1)
    stamp_ns = robot.ros.now_ns() - 3600 * S
    robot.advance(6.0)
    assert robot.age_s(robot.frame(stamp_ns)) == pytest.approx(6.0)


def test_the_offset_of_two_publishers_is_that_of_one_of_them():
    robot = Robot()
    for i in range(101):
        robot.frame(robot.ros.now_ns() - 3600 * S * (i % 2))
        robot.advance(0.1)
    assert robot.camera.offset_s in {0.0, -3600.0}
    robot.camera.clear()
    assert robot.camera.offset_s == 0.0


@given(st.lists(st.integers(-(10**18), 10**18), min_size=1, max_size=3 * CLOCK_SAMPLES))
def test_law_a_latency_is_what_one_can_be(delays):
    camera = CameraClock()
    for delay in delays:
        assert 0 <= camera.latency_ns(delay) <= LONGEST_LATENCY_NS


@given(st.integers(0, 2**62), st.floats(0, 1e9), st.integers(0, 2**62), st.integers(0, 10**15))
def test_law_nothing_is_younger_than_its_arrival(taken_ns, since_s, ros_ns, steady_ns):
    assert Moment(ros_ns, steady_ns).age_s(taken_ns, since_s) >= since_s


def test_simulated_time_counts_ages_at_its_own_rate():
    robot = Robot(is_simulated=True)
    frame = robot.frame(NOW)
    robot.advance(1.0, rate=3.0)
    assert robot.age_s(frame) == 3.0
    slow = robot.frame(robot.ros.now_ns())
    for _ in range(10):
        robot.advance(1.0, rate=0.1)
    assert robot.age_s(slow) == pytest.approx(1.0)


def test_while_simulated_time_stands_still_what_came_before_grows_old():
    robot = Robot(is_simulated=True)
    frame = robot.frame(NOW)
    robot.advance(0.5)
    assert robot.advance(1.9, rate=0.0).stood_ns == 0, 'a slow /clock does not stand still'
    assert robot.age_s(frame) == 0.5
    assert robot.advance(8.1, rate=0.0).stood_ns == 10 * S
    assert robot.age_s(frame) == 10.5
    going = robot.frame(robot.ros.now_ns())
    robot.advance(0.2, rate=0.0)
    assert robot.age_s(going) == pytest.approx(0.2)
    assert robot.advance(0.1).stood_ns == 0
    robot.is_simulated = False
    assert robot.time.now() == Moment(robot.ros.now_ns(), robot.steady.now_ns())


def test_windows_are_cut_by_simulated_time_else_by_the_steady_clock():
    assert Moment(7, 5).arrival_ns == 5
    assert Moment(7, 5, is_simulated=True).arrival_ns == 7
