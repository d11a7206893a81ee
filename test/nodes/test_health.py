"""How a camera is judged."""

from __future__ import annotations

from dataclasses import replace

from edge_vlm_ros.nodes.health import CameraHealth

WELL = CameraHealth(
    name='front',
    topic='/front/image_raw',
    publishers=1,
    fps=30.0,
    period_s=0.033,
    silence_s=0.02,
    watched_s=100.0,
    received=3000,
)


def test_a_camera_at_its_rate_is_well():
    assert WELL.problem == ''


def test_silence_of_a_second_is_a_problem_for_a_fast_camera_only():
    assert 'for 1.0 s' in replace(WELL, silence_s=1.0).problem
    assert replace(WELL, silence_s=1.0, period_s=0.5, fps=2.0).problem == ''


def test_a_topic_without_publisher_is_named():
    problem = replace(WELL, publishers=0, received=0, fps=0.0, silence_s=9.0).problem
    assert '/front/image_raw' in problem
    assert 'nobody publishes' in problem


def test_a_publisher_of_which_almost_nothing_arrives_names_the_cause_in_fast_dds():
    problem = replace(WELL, fps=0.3, period_s=3.0, silence_s=1.0).problem
    assert '512 KB' in problem
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' in problem
    assert '0.3 frames a second' in problem
    nothing = replace(WELL, received=0, fps=0.0, period_s=0.0, silence_s=5.0, watched_s=5.0)
    assert '512 KB' in nothing.problem


def test_a_slow_camera_is_well_when_it_is_said_to_be_slow():
    slow = replace(WELL, fps=0.3, period_s=3.0, silence_s=1.0, min_fps=0.0)
    assert slow.problem == ''


def test_an_incompatible_publisher_names_the_parameter():
    problem = replace(WELL, received=0, silence_s=5.0, incompatible='reliability').problem
    assert 'cameras.front.qos.reliability' in problem


def test_a_new_subscription_is_not_blamed_yet():
    assert '512 KB' not in replace(WELL, received=0, watched_s=0.5, silence_s=0.5).problem
