"""Frames of cameras that cannot be decoded: left out while there are others, and reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_vlm_ros.core import (
    BadFrame,
    BadImageError,
    ErrorCode,
    FeatureKey,
    Question,
    ShownAs,
)
from edge_vlm_ros.serving.feature_store import _decode
from edge_vlm_ros.serving.shown_frames import FrameGroup, name_frame


def spoilt(stored):
    """Return the same frame with no pixels in it."""
    return replace(stored, image=replace(stored.image, data=b''))


@pytest.fixture
def shown(frame):
    """Six frames of a camera."""
    return [frame(40 * i, stamp_ns=10 + i, received_ns=100 + i) for i in range(6)]


@pytest.fixture
def pipeline(open_scripted):
    return open_scripted(answers=[{'answer': 'I see {images} images.'}])


def reports(frames):
    reason = 'data has 0 bytes, but 8x8 px in rgb8 with a step of 24 bytes take 192'
    return tuple(BadFrame(f.source, f.stamp_ns, f.received_ns, reason) for f in frames)


@pytest.mark.parametrize('bad', [{0}, {5}, {1, 3, 4}, {0, 1, 2, 3, 4}, {1, 2, 3, 4, 5}])
def test_a_clip_goes_on_without_them_and_says_how_many(pipeline, shown, bad):
    frames = tuple(spoilt(f) if i in bad else f for i, f in enumerate(shown))
    answer = pipeline.ask(Question('What?', frames=frames)).answer(10)
    good = [frame for i, frame in enumerate(shown) if i not in bad]
    assert answer.success, answer.message
    assert answer.text == f'I see {len(good)} images.'
    assert [ref.stamp_ns for ref in answer.frames] == [frame.stamp_ns for frame in good]
    assert answer.bad_frames == reports(shown[i] for i in sorted(bad))
    assert answer.message.startswith(f'{len(bad)} of 6 frames could not be decoded: data has 0')
    again = pipeline.ask(Question('What?', frames=frames)).answer(10)
    assert (again.text, again.bad_frames) == (answer.text, answer.bad_frames)
    whole = pipeline.ask(Question('What?', frames=tuple(shown))).answer(10)
    assert (whole.text, whole.message, whole.bad_frames) == ('I see 6 images.', '', ())


@pytest.mark.parametrize('number', [1, 3])
def test_without_any_other_it_is_an_error_that_names_camera_and_frames(pipeline, shown, number):
    frames = tuple(map(spoilt, shown[:number]))
    answer = pipeline.ask(Question('What?', frames=frames)).answer(10)
    assert answer.error_code is ErrorCode.BAD_IMAGE
    assert answer.message.startswith("camera 'front': data has 0 bytes")
    assert answer.bad_frames == reports(frames)
    assert pipeline.ask(Question('What?', frames=tuple(shown))).answer(10).success


def test_an_image_that_a_request_brought_is_not_left_out(pipeline, shown):
    own = replace(shown[1], received_ns=0)
    answer = pipeline.ask(Question('What?', frames=(shown[0], spoilt(own)))).answer(10)
    assert answer.error_code is ErrorCode.BAD_IMAGE
    assert answer.bad_frames == ()


def test_a_conversation_goes_on_about_the_frames_that_were_good(pipeline, shown):
    frames = (spoilt(shown[0]), *shown[1:3])
    first = pipeline.ask(Question('What?', frames=frames, session_id='s')).answer(10)
    later = pipeline.ask(Question('And?', session_id='s')).answer(10)
    assert later.success, later.message
    assert [ref.stamp_ns for ref in later.frames] == [ref.stamp_ns for ref in first.frames]
    assert (later.message, later.bad_frames) == ('', ())


def test_of_two_neighbours_of_a_video_the_good_one_is_shown(shown):
    def group(*frames):
        key = FeatureKey(tuple(map(name_frame, frames)), ShownAs.VIDEO)
        return FrameGroup(key, frames)

    decoded, bad = _decode(group(shown[0], spoilt(shown[1])))
    assert [frame and frame.stamp_ns for frame in decoded] == [10, None]
    assert bad == reports(shown[1:2])
    with pytest.raises(BadImageError, match="camera 'front'"):
        _decode(group(*map(spoilt, shown[:2])))
    own = replace(spoilt(shown[1]), received_ns=0)
    with pytest.raises(BadImageError, match="camera 'front'"):
        _decode(group(shown[0], own))
