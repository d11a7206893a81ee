"""Which frames are chosen: stills, clips, windows that the buffer no longer holds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import NS_PER_S, BadRequestError, FrameSource, RawImage, StoredFrame
from edge_vlm_ros.vision.frame_buffer import FrameBuffer
from edge_vlm_ros.vision.frame_sampler import ChosenFrames, choose_frames, spread

START_NS = 1_700_000_000 * NS_PER_S
IMAGE = RawImage('rgb8', 1, 1, 3, b'rgb')


def filled(stamps, max_frames=10_000) -> FrameBuffer:
    buffer = FrameBuffer(max_frames=max_frames, max_seconds=1e9, max_bytes=10**9)
    for stamp in stamps:
        buffer.add(StoredFrame(FrameSource('front'), stamp, IMAGE), stamp)
    return buffer


def at(seconds: float) -> int:
    return START_NS + round(seconds * NS_PER_S)


def seconds(chosen: ChosenFrames) -> list[float]:
    return [(frame.stamp_ns - START_NS) / NS_PER_S for frame in chosen.frames]


TEN_SECONDS = filled(at(i / 10) for i in range(101))


def test_an_empty_buffer_gives_no_frame():
    assert choose_frames(filled([]), last_seconds=3.0, max_frames=4) == ChosenFrames()


def test_a_still_is_the_newest_frame():
    assert seconds(choose_frames(TEN_SECONDS)) == [10.0]


def test_a_still_is_one_frame_whatever_max_frames_says():
    assert seconds(choose_frames(TEN_SECONDS, max_frames=8)) == [10.0]


@pytest.mark.parametrize(
    ('as_of', 'chosen'), [(3.04, 3.0), (3.06, 3.1), (3.05, 3.0), (-5, 0), (99, 10)]
)
def test_a_still_as_of_a_time_is_the_nearest_frame(as_of, chosen):
    assert seconds(choose_frames(TEN_SECONDS, as_of_ns=at(as_of))) == [chosen]


def test_a_still_from_before_the_buffer_says_so():
    assert choose_frames(TEN_SECONDS, as_of_ns=at(-5)).window_truncated
    assert not choose_frames(TEN_SECONDS, as_of_ns=at(0)).window_truncated


def test_a_clip_is_spread_evenly_and_ends_with_the_newest():
    chosen = choose_frames(TEN_SECONDS, last_seconds=4.0, max_frames=5)
    assert seconds(chosen) == [6, 7, 8, 9, 10]
    assert not chosen.window_truncated


def test_a_clip_of_one_frame_is_the_newest():
    assert seconds(choose_frames(TEN_SECONDS, last_seconds=4.0, max_frames=1)) == [10]


def test_a_clip_as_of_a_time_ends_there():
    chosen = choose_frames(TEN_SECONDS, last_seconds=2.0, max_frames=3, as_of_ns=at(5.0))
    assert seconds(chosen) == [3, 4, 5]


def test_a_clip_with_few_frames_takes_them_all():
    chosen = choose_frames(TEN_SECONDS, last_seconds=0.2, max_frames=8)
    assert seconds(chosen) == [9.8, 9.9, 10.0]


def test_the_window_ends_now_and_not_at_the_newest_frame():
    chosen = choose_frames(TEN_SECONDS, last_seconds=3.0, max_frames=3, now_ns=at(12.0))
    assert seconds(chosen) == [9.0, 9.5, 10.0]


def test_a_camera_that_stopped_before_the_window_still_gives_its_newest_frame():
    chosen = choose_frames(TEN_SECONDS, last_seconds=3.0, max_frames=3, now_ns=at(60.0))
    assert seconds(chosen) == [10.0]
    assert not chosen.window_truncated


def test_a_camera_clock_ahead_of_ours_loses_no_frame():
    chosen = choose_frames(TEN_SECONDS, last_seconds=1.0, max_frames=3, now_ns=at(9.0))
    assert seconds(chosen) == [9.0, 9.5, 10.0]


def test_a_window_that_begins_before_the_buffer_is_truncated():
    chosen = choose_frames(TEN_SECONDS, last_seconds=20.0, max_frames=3)
    assert seconds(chosen) == [0, 5, 10]
    assert chosen.window_truncated


def test_dropped_frames_truncate_the_window_they_were_in():
    buffer = filled((at(i / 10) for i in range(101)), max_frames=31)
    assert choose_frames(buffer, last_seconds=4.0, max_frames=3).window_truncated
    assert not choose_frames(buffer, last_seconds=3.0, max_frames=3).window_truncated


def test_starting_less_than_a_frame_late_is_not_truncated():
    assert not choose_frames(TEN_SECONDS, last_seconds=10.1, max_frames=3).window_truncated
    assert choose_frames(TEN_SECONDS, last_seconds=10.11, max_frames=3).window_truncated


def test_a_pause_gives_fewer_frames_and_none_twice():
    buffer = filled([at(0), at(9.7), at(9.8), at(9.9), at(10)])
    chosen = choose_frames(buffer, last_seconds=10.0, max_frames=4)
    assert seconds(chosen) == [0.0, 9.7, 10.0]


def arrived(frames) -> FrameBuffer:
    """Return a buffer of frames given as (arrival, stamp), both seconds."""
    buffer = FrameBuffer(max_frames=10_000, max_seconds=1e9, max_bytes=10**9)
    for arrival, stamp in frames:
        buffer.add(StoredFrame(FrameSource('front'), at(stamp), IMAGE), at(arrival))
    return buffer


TENTHS = [i / 10 for i in range(101)]


@pytest.mark.parametrize('offset', [-120.0, -3 * 3600.0, -1_699_999_990.0, 20.0, 7200.0])
def test_a_clip_of_a_camera_with_another_clock_holds_what_arrived_in_the_window(offset):
    buffer = arrived([(s, s + offset) for s in TENTHS])
    chosen = choose_frames(buffer, last_seconds=4.0, max_frames=5, now_ns=at(10.0))
    assert [s - offset for s in seconds(chosen)] == pytest.approx([6, 7, 8, 9, 10])
    assert not chosen.window_truncated
    assert choose_frames(buffer, last_seconds=11.0, now_ns=at(10.0)).window_truncated


def test_a_clip_of_two_publishers_with_two_clocks_holds_what_arrived_in_the_window():
    buffer = arrived([(s, s - 3 * 3600 * (i % 2)) for i, s in enumerate(TENTHS)])
    chosen = choose_frames(buffer, last_seconds=4.0, max_frames=5, now_ns=at(10.0))
    assert [s % 3600 for s in seconds(chosen)] == pytest.approx([6, 7, 8, 9, 10])
    assert not chosen.window_truncated


def test_a_clock_that_is_set_in_the_midst_of_a_window_spoils_neither_window_nor_spacing():
    buffer = arrived([(s, s if s < 8 else s + 3600) for s in TENTHS])
    chosen = choose_frames(buffer, last_seconds=4.0, max_frames=5, now_ns=at(10.0))
    assert [s % 3600 for s in seconds(chosen)] == pytest.approx([6, 7, 8, 9, 10])


def test_frames_that_were_taken_in_late_are_spread_by_their_stamps():
    """The executor was busy for half a second, then took what waited."""
    buffer = arrived([(9.5 if 9.0 < s < 9.5 else s, s) for s in TENTHS])
    chosen = choose_frames(buffer, last_seconds=1.0, max_frames=5, now_ns=at(10.0))
    # Of what arrived from 9.0 on.
    assert seconds(chosen) == pytest.approx([9.0, 9.2, 9.5, 9.7, 10.0], abs=0.06)


def test_a_time_in_the_past_is_looked_up_by_stamps_in_whatever_order_they_came():
    buffer = arrived([(s, s - 3 * 3600 * (i % 2)) for i, s in enumerate(TENTHS)])
    assert seconds(choose_frames(buffer, as_of_ns=at(5.0))) == [5.0]
    assert seconds(choose_frames(buffer, as_of_ns=at(5.1 - 3 * 3600))) == [5.1 - 3 * 3600]
    clip = choose_frames(buffer, last_seconds=1.0, max_frames=8, as_of_ns=at(5.0))
    assert seconds(clip) == pytest.approx([4.0, 4.2, 4.4, 4.6, 4.8, 5.0])


@pytest.mark.parametrize('last_seconds', [-1.0, float('nan'), float('inf'), 1e9])
def test_a_senseless_window_is_refused(last_seconds):
    with pytest.raises(BadRequestError, match='last_seconds'):
        choose_frames(TEN_SECONDS, last_seconds=last_seconds, max_frames=2)


def test_choosing_no_frame_is_refused():
    with pytest.raises(BadRequestError, match='max_frames'):
        choose_frames(TEN_SECONDS, max_frames=0)


STAMPS = st.lists(st.integers(0, 10**6), min_size=1, max_size=50, unique=True).map(sorted)


@given(STAMPS, st.integers(1, 12))
def test_law_spreading_keeps_order_bound_and_the_newest(stamps, max_frames):
    chosen = spread(stamps, max_frames)
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= max_frames
    assert chosen[-1] == len(stamps) - 1
    if max_frames > 1:
        assert chosen[0] == 0


@given(STAMPS, st.integers(2, 12))
def test_law_each_target_time_has_its_nearest_frame(stamps, max_frames):
    chosen = [stamps[i] for i in spread(stamps, max_frames)]
    if len(stamps) <= max_frames:
        assert chosen == stamps
        return
    for i in range(max_frames):
        target = stamps[0] + i * (stamps[-1] - stamps[0]) // (max_frames - 1)
        assert min(abs(s - target) for s in stamps) == min(abs(s - target) for s in chosen)


@given(STAMPS, st.integers(2, 12))
def test_law_an_even_stream_is_spread_evenly(stamps, max_frames):
    count = 10 * max_frames
    chosen = spread(range(0, count * 100, 100), max_frames)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert len(chosen) == max_frames
    assert max(gaps) - min(gaps) <= 1


@given(
    stamps=STAMPS,
    last_seconds=st.floats(0, 1e-3),
    max_frames=st.integers(1, 8),
    as_of_ns=st.integers(0, 2 * 10**6),
    now_ns=st.integers(0, 2 * 10**6),
)
def test_law_chosen_frames_are_in_order_within_the_window_and_the_same_again(
    stamps, last_seconds, max_frames, as_of_ns, now_ns
):
    buffer = filled(stamps)
    asked = {
        'last_seconds': last_seconds,
        'max_frames': max_frames,
        'as_of_ns': as_of_ns,
        'now_ns': now_ns,
    }
    chosen = choose_frames(buffer, **asked)
    assert chosen == choose_frames(buffer, **asked)
    got = [frame.stamp_ns for frame in chosen.frames]
    assert got == sorted(set(got))
    assert 1 <= len(got) <= max_frames
    end = as_of_ns or max(now_ns, stamps[-1])
    assert abs(got[-1] - end) == min(abs(stamp - end) for stamp in stamps)
    if len(got) > 1:
        assert got[0] >= end - round(last_seconds * NS_PER_S)
    if stamps[0] <= end - round(last_seconds * NS_PER_S):
        assert not chosen.window_truncated
