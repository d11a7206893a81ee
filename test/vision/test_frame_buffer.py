"""The ring buffer: bounds, order, time jumps, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import NS_PER_S, BadRequestError, FrameSource, RawImage, StoredFrame
from edge_vlm_ros.vision.frame_buffer import BufferStats, FrameBuffer

SOURCE = FrameSource('front')


def frame(stamp_ns: int, nbytes: int = 3) -> StoredFrame:
    return StoredFrame(SOURCE, stamp_ns, RawImage('rgb8', 1, 1, 3, bytes(nbytes)))


def buffer(max_frames=1000, max_seconds=1e6, max_bytes=10**9) -> FrameBuffer:
    return FrameBuffer(max_frames=max_frames, max_seconds=max_seconds, max_bytes=max_bytes)


def add(kept: FrameBuffer, *frames: StoredFrame) -> None:
    """Add frames that arrive when they are stamped."""
    for one in frames:
        kept.add(one, one.stamp_ns)


def stamps(kept: FrameBuffer) -> list[int]:
    return [one.stamp_ns for one in kept.frames()]


def test_an_empty_buffer_has_no_newest_frame():
    kept = buffer()
    assert (kept.newest(), kept.kept(), len(kept), kept.nbytes) == (None, (), 0, 0)


def test_the_frame_bound_drops_the_oldest():
    kept = buffer(max_frames=2)
    for stamp in (1, 2, 3):
        add(kept, frame(stamp))
    assert stamps(kept) == [2, 3]
    assert kept.stats == BufferStats(received=3, evicted=1)


def test_the_seconds_bound_keeps_a_frame_of_exactly_that_age():
    kept = buffer(max_seconds=2.0)
    for second in (0, 1, 2):
        add(kept, frame(1 + second * NS_PER_S))
    assert len(kept) == 3
    add(kept, frame(2 + 2 * NS_PER_S))
    assert stamps(kept)[0] == 1 + NS_PER_S


def test_the_byte_bound_drops_as_many_as_it_must():
    kept = buffer(max_bytes=100)
    for stamp in range(1, 11):
        add(kept, frame(stamp, 10))
    assert kept.nbytes == 100
    add(kept, frame(11, 75))
    assert stamps(kept) == [9, 10, 11]
    assert kept.nbytes == 95


def test_a_frame_above_the_byte_bound_is_kept_alone():
    kept = buffer(max_bytes=100)
    add(kept, frame(1, 50))
    add(kept, frame(2, 500))
    assert stamps(kept) == [2]
    add(kept, frame(3, 50))
    assert stamps(kept) == [3]
    assert kept.nbytes == 50


def test_going_back_in_time_clears():
    kept = buffer()
    for stamp in (100, 200, 300, 50, 60):
        add(kept, frame(stamp))
    assert stamps(kept) == [50, 60]
    assert kept.stats == BufferStats(received=5, time_jumps=1)


def test_a_frame_with_the_newest_stamp_takes_its_place():
    kept = buffer()
    add(kept, frame(1, 10))
    again = frame(1, 20)
    add(kept, again)
    assert kept.frames() == (again,)
    assert kept.nbytes == 20
    assert kept.stats.replaced == 1


def test_stamps_that_jump_or_are_of_two_clocks_drop_nothing():
    """Two publishers on one topic, three hours apart, and a clock that is set meanwhile."""
    kept = buffer(max_seconds=1.0)
    hours_ns = 3 * 3600 * NS_PER_S
    shown = [hours_ns * (i % 2) + i if i < 20 else i for i in range(1, 30)]
    for i, stamp in enumerate(shown):
        kept.add(frame(stamp), i * NS_PER_S // 10)
    assert stamps(kept) == shown[-11:]
    assert [each.arrived_ns for each in kept.kept()] == [i * 10**8 for i in range(18, 29)]
    assert kept.stats == BufferStats(received=29, evicted=18)


def test_a_frame_that_is_of_no_use_is_dropped():
    kept = buffer()
    one, other = frame(1, 10), frame(2, 20)
    add(kept, one, other)
    assert kept.discard(other)
    assert not kept.discard(other)
    assert (kept.newest(), kept.nbytes) == (one, 10)


def test_clearing_keeps_the_counters():
    kept = buffer()
    add(kept, frame(1))
    kept.clear()
    assert (len(kept), kept.nbytes, kept.stats.received) == (0, 0, 1)


def test_a_frame_is_stored_as_it_came_and_let_go_when_dropped():
    class Data(bytearray):
        __slots__ = ('__weakref__',)

    data = Data(3)
    gone = weakref.ref(data)
    kept = buffer(max_frames=1)
    add(kept, StoredFrame(SOURCE, 1, RawImage('rgb8', 1, 1, 3, data)))
    assert kept.newest().image.data is data
    add(kept, frame(2))
    del data
    assert gone() is None


@pytest.mark.parametrize(
    'bounds',
    [
        {'max_frames': 0},
        {'max_seconds': 0.0},
        {'max_seconds': float('nan')},
        {'max_seconds': float('inf')},
        {'max_bytes': 0},
    ],
)
def test_bounds_that_keep_nothing_are_refused(bounds):
    (name,) = bounds
    with pytest.raises(BadRequestError, match=name):
        buffer(**bounds)


@given(
    added=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 50)), max_size=60),
    max_frames=st.integers(1, 8),
    max_span=st.integers(1, 20),
    max_bytes=st.integers(1, 200),
)
def test_law_the_buffer_is_the_longest_allowed_tail_of_what_came(
    added, max_frames, max_span, max_bytes
):
    kept = buffer(max_frames, max_span / NS_PER_S, max_bytes)
    run: list[StoredFrame] = []  # since time last went back, one frame a stamp
    for stamp, nbytes in added:
        one = frame(stamp, nbytes)
        add(kept, one)
        if run and stamp < run[-1].stamp_ns:
            run = []
        elif run and stamp == run[-1].stamp_ns:
            run.pop()
        run.append(one)

        def is_allowed(tail: list[StoredFrame]) -> bool:
            return len(tail) == 1 or (
                len(tail) <= max_frames
                and tail[-1].stamp_ns - tail[0].stamp_ns <= max_span
                and sum(each.nbytes for each in tail) <= max_bytes
            )

        # Frames dropped earlier do not come back when bounds have room again.
        while not is_allowed(run):
            run.pop(0)
        assert list(kept.frames()) == run
        assert kept.nbytes == sum(each.nbytes for each in run)
        assert kept.newest() is one
    assert kept.stats.received == len(added)


def test_the_camera_side_loads_no_opencv():
    code = (
        'import sys, edge_vlm_ros.vision\n'
        'import edge_vlm_ros.vision.frame_buffer, edge_vlm_ros.vision.frame_sampler\n'
        'from edge_vlm_ros.vision import FrameBuffer, SUPPORTED_ENCODINGS, choose_frames\n'
        'print([name for name in sys.modules if name.split(".")[0] == "cv2"])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_every_public_name_of_the_room_is_there():
    code = (
        'import edge_vlm_ros.vision as room\n'
        'assert set(room._MODULES) == set(room.__all__), set(room._MODULES) ^ set(room.__all__)\n'
        'for name in room.__all__:\n'
        '    value = getattr(room, name)\n'
        '    assert type(value).__name__ != "module", name\n'
        'try:\n'
        '    room.nothing\n'
        'except AttributeError as error:\n'
        '    print(error)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert "no attribute 'nothing'" in done.stdout
