"""Frames are grouped as a question shows them, under keys that no other frames have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_vlm_ros.core import ArrivalTime, ImageDigest, ShownAs
from edge_vlm_ros.serving.shown_frames import group_frames, name_frame

ALONE, AMONG, VIDEO = ShownAs.ALONE, ShownAs.AMONG_OTHERS, ShownAs.VIDEO
ONE_OF = ShownAs.ONE_OF_IMAGES


@pytest.mark.parametrize(
    ('cameras', 'asked', 'size', 'groups'),
    [
        ('', None, 2, []),
        ('a', None, 1, [(ALONE, 1)]),
        ('a', None, 2, [(ALONE, 1)]),
        ('aa', None, 1, [(AMONG, 1), (AMONG, 1)]),
        ('aaa', None, 2, [(VIDEO, 2), (VIDEO, 1)]),
        ('aab', None, 2, [(VIDEO, 2), (AMONG, 1)]),
        ('--', None, 2, [(AMONG, 1), (AMONG, 1)]),
        ('a', AMONG, 2, [(AMONG, 1)]),
        ('a', VIDEO, 2, [(VIDEO, 1)]),
        ('a', VIDEO, 1, [(AMONG, 1)]),
        ('-', VIDEO, 2, [(AMONG, 1)]),
        ('aa', AMONG, 2, [(AMONG, 1), (AMONG, 1)]),
        ('aab', ALONE, 2, [(ALONE, 1)] * 3),
    ],
)
def test_a_question_says_how_frames_are_shown_or_their_number_does(
    frame, cameras, asked, size, groups
):
    frames = [
        frame(1, stamp_ns=n, camera=camera.strip('-'), received_ns=n + 1)
        for n, camera in enumerate(cameras)
    ]
    found = group_frames(frames, asked, size)
    assert [(group.key.shown_as, len(group.frames)) for group in found] == groups
    assert [stored for group in found for stored in group.frames] == frames
    assert len({group.key for group in found}) == len(found)


@pytest.mark.parametrize(
    ('cameras', 'asked', 'way', 'images'),
    [
        ('a', None, ALONE, 1),
        ('ab', None, ONE_OF, 2),
        ('abc', None, ONE_OF, 3),
        ('--', None, ONE_OF, 2),
        ('a--', None, ONE_OF, 3),
        ('aa', None, AMONG, 1),
        ('aab', None, AMONG, 1),
        ('ab', AMONG, AMONG, 1),
        ('ab', ONE_OF, ONE_OF, 2),
    ],
)
def test_frames_of_which_each_is_the_only_one_of_its_camera_are_images(
    frame, cameras, asked, way, images
):
    frames = [
        frame(1, stamp_ns=n, camera=camera.strip('-'), received_ns=n + 1)
        for n, camera in enumerate(cameras)
    ]
    found = group_frames(frames, asked, shares_detail=True)
    assert {(group.key.shown_as, group.key.images) for group in found} == {(way, images)}
    plain = group_frames(frames, asked)  # for families that make no difference
    assert ONE_OF not in {group.key.shown_as for group in plain}


def test_a_cameras_frame_is_known_by_stamp_and_arrival(frame):
    one = name_frame(frame(1, received_ns=7))
    assert one == name_frame(frame(1, received_ns=7))
    assert one.content == ArrivalTime(7)
    assert one != name_frame(frame(1, received_ns=8)), 'a simulation that starts over'
    assert one != name_frame(frame(1, stamp_ns=2, received_ns=7))
    assert one != name_frame(frame(1, camera='rear', received_ns=7))


def test_an_image_that_no_camera_sent_is_known_by_its_bytes_and_their_layout(frame):
    stored = frame(1)
    one = name_frame(stored)
    assert isinstance(one.content, ImageDigest)
    assert one == name_frame(frame(1))
    assert one != name_frame(frame(2))
    for change in ({'encoding': 'bgr8'}, {'width': 4, 'height': 16, 'step': 12}):
        assert one != name_frame(replace(stored, image=replace(stored.image, **change)))
    for data in (bytearray(stored.image.data), memoryview(stored.image.data)):
        assert one == name_frame(replace(stored, image=replace(stored.image, data=data)))


def test_a_video_is_another_when_one_of_its_frames_is(frame):
    frames = [frame(n, stamp_ns=n, received_ns=n + 1) for n in range(3)]
    (one,) = group_frames(frames[:2], frames_per_input=2)
    (other,) = group_frames([frames[0], frames[2]], frames_per_input=2)
    assert one.key != other.key
    assert one.key == group_frames(frames[:2], VIDEO, 2)[0].key
