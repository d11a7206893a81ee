"""Missing frames, seen from stamps alone."""

from __future__ import annotations

import random

import pytest

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.nodes.stamp_gaps import StampGaps


def share(stamps):
    gaps = StampGaps()
    for stamp in stamps:
        gaps.note(round(stamp * NS_PER_S))
    return gaps.missing_share


def steady(number=400, fps=30.0, jitter=0.0, seed=3):
    chance = random.Random(seed)
    return [1.0 + i / fps + chance.uniform(-jitter, jitter) for i in range(number)]


def lossy(stamps, lost, seed=5):
    chance = random.Random(seed)
    return [stamp for stamp in stamps if chance.random() >= lost]


@pytest.mark.parametrize('lost', [0.4, 0.64, 0.8])
def test_the_share_of_lost_frames_is_seen_at_any_rate(lost):
    for fps in (10.0, 30.0, 60.0):
        found = share(lossy(steady(fps=fps, jitter=0.03 / fps), lost))
        assert found == pytest.approx(lost, abs=0.15), fps


@pytest.mark.parametrize(
    'stamps',
    [
        [],
        steady(5),
        steady(),
        steady(jitter=0.005),
        [1.0 + i / 30 for i in range(30)] + [2.0 + i / 15 for i in range(30)],  # dark: 15 a second
        [1.0 + i * i / 900 for i in range(100)],  # a rate that changes all the time
        [1.0 + i * 3600.0 for i in range(50)],  # nothing but jumps
        [1.0] * 50,
        lossy(steady(), 0.02),
    ],
)
def test_nothing_is_made_up(stamps):
    assert share(stamps) < 0.1


def test_it_forgets_with_the_clock():
    gaps = StampGaps()
    for stamp in lossy(steady(), 0.6):
        gaps.note(round(stamp * NS_PER_S))
    assert gaps.missing_share > 0.4
    gaps.clear()
    assert gaps.missing_share == 0.0
