"""What the demo asks, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_vlm_ros.demo import questions
from edge_vlm_ros.demo.questions import QUERIES, Plan, truth_of_frames
from edge_vlm_ros.demo.truth import ClipMoment, ClipTruth, Thing

CLIPS = sorted((Path(questions.__file__).parent / 'clips').glob('*.json'))
BY_TOPIC = {query.topic: query for query in QUERIES}


def _clip(x_of_time, seconds=12.0, fps=10):
    """Make a clip of one red box whose place depends on time."""
    times = [number / fps for number in range(int(seconds * fps))]
    return ClipTruth([ClipMoment(t, (Thing('red', 'box', x_of_time(t), 2.0),)) for t in times])


STANDS = _clip(lambda _: 0.1)
CROSSES = _clip(lambda t: 0.05 + 0.075 * t)


def test_every_topic_of_the_demo_can_be_asked_about_each_shipped_clip():
    for path in CLIPS:
        plan = Plan(ClipTruth.load(path))
        assert set(plan.topics) == {'description', 'colour', 'motion', 'path'}


def test_only_colours_of_what_is_there_are_asked():
    plan = Plan(STANDS)
    asked = {plan.query_now(t / 10, 'colour') for t in range(120)} - {None}
    assert {query.words for query in asked} == {'What color is the box?'}


def test_nothing_is_asked_while_a_thing_crosses_a_border():
    plan = Plan(CROSSES)
    is_open = [plan.query_now(t / 10, 'description') is not None for t in range(120)]
    border_s = (1 / 3 - 0.05) / 0.075
    assert not is_open[round(border_s * 10)]
    assert is_open[0] is False  # a moment before the clip's start would count
    assert any(is_open)


def test_motion_is_not_asked_over_the_seam_of_the_loop():
    plan = Plan(CROSSES)
    first = next(t / 10 for t in range(120) if plan.query_now(t / 10, 'motion'))
    assert first >= 4.0


def test_motion_is_asked_where_something_moves_if_anything_does():
    moves_late = _clip(lambda t: 0.1 if t < 12 else min(0.1 + 0.075 * (t - 12), 0.9), seconds=24)
    plan = Plan(moves_late)
    times = [t / 10 for t in range(240) if plan.query_now(t / 10, 'motion')]
    assert min(times) > 13.0


def test_motion_is_still_asked_where_nothing_moves():
    plan = Plan(STANDS)
    assert any(plan.query_now(t / 10, 'motion') for t in range(120))


def test_the_truth_is_that_of_the_frames_used():
    times_s = [5.0 + 0.5 * n for n in range(8)]
    query = BY_TOPIC['motion']
    assert truth_of_frames(query, CROSSES, times_s) == 'The red box is moving right.'
    assert truth_of_frames(query, CROSSES, times_s[:2]) is None


@pytest.mark.parametrize('times_s', [[], [11.0, 11.5, 0.2, 0.7], [3.0, 3.0]])
def test_frames_out_of_order_or_none_have_no_truth(times_s):
    assert truth_of_frames(BY_TOPIC['description'], STANDS, times_s) is None
