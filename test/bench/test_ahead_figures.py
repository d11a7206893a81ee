"""What the figures of work ahead are held against: the model of the chip, the camera."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.vision.change import has_changed, thumbnail
from tools.bench.ahead.layouts import least_ms, prefill_ms, vendor_ms
from tools.bench.ahead.scene import Camera, poisson_ns


@pytest.mark.parametrize(
    ('tokens', 'published_ms'), [(95, 220.979), (311, 862.291), (1123, 4588.79), (2156, 13904.383)]
)
def test_the_prefill_times_are_those_that_the_vendor_publishes(tokens, published_ms):
    assert prefill_ms(0, tokens) + 11.455 == pytest.approx(published_ms, abs=0.02)


def test_the_vendor_pays_for_frames_and_whoever_is_ready_for_the_words():
    assert vendor_ms(8, 20) == pytest.approx(16823.3, abs=0.1)
    assert least_ms(8, 20) == pytest.approx(1478.8, abs=0.1)
    assert least_ms(0, 32) == vendor_ms(0, 32)
    for frames in range(1, 9):
        for tokens in (5, 10, 20):
            assert least_ms(frames, tokens) < vendor_ms(frames, tokens) / 3


def test_the_camera_shows_another_thing_after_each_change_and_only_then():
    rng = np.random.default_rng(5)
    changes = poisson_ns(rng, 10.0, 0, 600 * NS_PER_S)
    camera = Camera(rng, changes)
    assert len(changes) > 30
    before = camera.newest(0)
    assert camera.newest(NS_PER_S // 20) is before
    for second in range(1, 600):
        shot = camera.newest(second * NS_PER_S)
        assert shot.scene == sum(at_ns <= shot.at_ns for at_ns in changes)
        assert camera.shot_of(shot.frame) is shot
        is_other = has_changed(thumbnail(before.frame.image), thumbnail(shot.frame.image))
        assert not is_other or shot.scene != before.scene
        before = shot
