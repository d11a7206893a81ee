"""How a camera is judged: each cause has its own sentence, and only where it can be the cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_vlm_ros.nodes.health import IMAGE_TYPES, CameraHealth, FrameCounts, Publisher
from edge_vlm_ros.nodes.middleware import Losses

FAST_DDS = Losses('rmw_fastrtps_cpp', largest_bytes=6_220_800)
WELL = CameraHealth(
    name='front',
    topic='/front/image_raw',
    publishers=(Publisher(),),
    fps=30.0,
    period_s=0.033,
    age_s=0.05,
    silence_s=0.02,
    watched_s=100.0,
    max_age_s=2.0,
    counts=FrameCounts(received=3000),
    losses=FAST_DDS,
)
NOTHING = replace(
    WELL,
    fps=0.0,
    period_s=0.0,
    age_s=0.0,
    silence_s=100.0,
    counts=FrameCounts(),
    losses=Losses('rmw_fastrtps_cpp'),
)
SILENT = replace(WELL, fps=0.0, silence_s=9.0, age_s=9.0)


def test_a_camera_at_its_rate_is_well():
    assert WELL.problem == ''


def test_silence_of_a_second_is_a_problem_for_a_fast_camera_only():
    assert 'for 1.0 s' in replace(WELL, silence_s=1.0).problem
    assert replace(WELL, silence_s=1.0, age_s=1.0, period_s=0.5, fps=2.0).problem == ''


@pytest.mark.parametrize(
    ('health', 'said'),
    [
        (replace(NOTHING, publishers=()), 'nobody publishes there (is the camera on'),
        (replace(SILENT, publishers=()), 'nobody publishes there any more'),
        (SILENT, 'has stopped sending'),
        (NOTHING, '512 KB'),
        (replace(NOTHING, watched_s=0.5), 'has just been found'),
        (replace(SILENT, stood_s=8.0, is_simulated=True), 'simulated time has stood still for 8'),
        (replace(NOTHING, losses=Losses('rmw_cyclonedds_cpp')), 'net.core.rmem_max'),
        (replace(NOTHING, losses=Losses('rmw_zenoh_cpp')), 'does not know'),
        (
            replace(NOTHING, publishers=(Publisher(IMAGE_TYPES['compressed']),)),
            'sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image (set cameras.front.tran',
        ),
        (
            replace(NOTHING, transport='compressed'),
            'sensor_msgs/msg/Image, not sensor_msgs/msg/CompressedImage (set cameras.front.tran',
        ),
        (
            replace(NOTHING, publishers=(Publisher('std_msgs/msg/String'),)),
            'std_msgs/msg/String, not sensor_msgs/msg/Image (is cameras.front.topic',
        ),
        (
            replace(NOTHING, reliability='reliable', publishers=(Publisher(is_reliable=False),)),
            'another reliability than the reliable asked for (parameter cameras.front.qos',
        ),
        (replace(NOTHING, incompatible='deadline'), 'another deadline'),
        (
            replace(NOTHING, durability='transient_local', reliability='reliable'),
            'another durability than the transient_local asked for (parameter cameras.front.qos.d',
        ),
        (
            replace(NOTHING, publishers=(Publisher(is_latched=True),)),
            'set cameras.front.qos.durability to transient_local',
        ),
        (replace(SILENT, publishers=(Publisher(is_latched=True),)), 'sends a picture once'),
    ],
)
def test_each_cause_of_silence_has_its_own_sentence(health, said):
    assert said in health.problem
    if '512 KB' not in said:
        assert '512 KB' not in health.problem


def test_what_was_said_of_an_earlier_publisher_is_not_said_of_the_next():
    assert 'another' not in replace(SILENT, incompatible='reliability').problem


def test_few_large_raw_images_name_the_cause_in_fast_dds():
    starved = replace(WELL, fps=0.3, period_s=3.0, silence_s=1.0, counts=FrameCounts(received=30))
    assert 'only 0.3 frames a second' in starved.problem
    assert '512 KB' in starved.problem
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' in starved.problem
    small = replace(starved, losses=replace(FAST_DDS, largest_bytes=300_000))
    assert '512 KB' not in small.problem
    assert 'cameras.front.min_fps' in small.problem
    assert '512 KB' in replace(starved, silence_s=20.0).problem


def test_a_slow_camera_is_well_when_it_is_said_to_be_slow():
    slow = replace(WELL, fps=0.3, period_s=3.0, silence_s=1.0, age_s=1.0, min_fps=0.0)
    assert slow.problem == ''


@pytest.mark.parametrize('evidence', [{'lost_share': 0.64}, {'gaps_share': 0.64}])
def test_lost_frames_are_a_problem_at_any_rate(evidence):
    lossy = replace(WELL, fps=10.3, losses=replace(FAST_DDS, middleware='rmw_cyclonedds_cpp'))
    assert lossy.problem == ''
    problem = replace(lossy, **evidence).problem
    assert 'about 64% of the images' in problem
    assert '10.3 a second arrive' in problem
    assert 'net.core.rmem_max' in problem


def test_damaged_frames_are_a_problem_and_say_why():
    bad = replace(WELL, bad_share=0.5, last_bad_reason='the JPEG file is truncated')
    assert '50% of the images on /front/image_raw cannot be decoded: the JPEG' in bad.problem
    assert replace(bad, bad_share=0.05).problem == ''


@pytest.mark.parametrize(
    ('offset_s', 'said'),
    [
        (20.0, '20.0 s ahead of the node'),
        (-120.0, '120.0 s behind the node'),
        (-1.7e9, 'use_sim_time'),
        (-8.0, '8.0 s old by their stamps when they come: they are late, or the clock'),
        (-0.4, ''),
        (0.4, ''),
    ],
)
def test_a_clock_that_is_off_is_told(offset_s, said):
    health = replace(WELL, clock_offset_s=offset_s)
    assert said in health.problem
    assert bool(health.problem) == bool(said)


def test_a_camera_on_the_time_of_day_under_simulated_time_is_told():
    health = replace(WELL, clock_offset_s=1.7e9, is_simulated=True)
    assert 'the node lives in simulated time and the camera in another' in health.problem


def test_no_camera_is_well_of_which_every_question_is_refused():
    slow_link = replace(WELL, age_s=0.9, silence_s=0.1, clock_offset_s=-0.8, max_age_s=0.5)
    assert 'questions are refused' in slow_link.problem
    assert replace(slow_link, max_age_s=1.0).problem == ''
    assert replace(slow_link, max_age_s=0.0).problem == '', 'any age will do'
