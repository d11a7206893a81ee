"""The newest offer of each camera waits, and cameras take turns however often they offer."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_vlm_ros.core import ArrivalTime, FeatureKey, FrameKey, ShownAs
from edge_vlm_ros.scheduling.offer_queue import OfferQueue


def key(camera, number):
    frame = FrameKey(camera, '/image', number, ArrivalTime(number))
    return FeatureKey((frame,), ShownAs.ALONE)


def all_of(queue):
    keys = []
    while (taken := queue.take()) is not None:
        keys.append(taken)
    return keys


def test_a_newer_offer_stands_where_the_older_one_stood():
    queue = OfferQueue(9)
    queue.put([key('a', 1)])
    queue.put([key('b', 1)])
    assert queue.put([key('a', 2)]) == [key('a', 1)]
    assert all_of(queue) == [key('a', 2), key('b', 1)]


def test_cameras_take_turns_a_key_each():
    queue = OfferQueue(9)
    queue.put([key('a', 1), key('a', 2), key('a', 3)])
    queue.put([key('b', 1)])
    assert all_of(queue) == [key('a', 1), key('b', 1), key('a', 2), key('a', 3)]


def test_beyond_the_bound_the_camera_with_the_most_loses_its_oldest_and_keeps_its_turn():
    queue = OfferQueue(3)
    queue.put([key('a', 1), key('a', 2), key('a', 3)])
    assert queue.put([key('b', 1)]) == [key('a', 1)]
    assert all_of(queue) == [key('a', 2), key('b', 1), key('a', 3)]


def test_what_needs_no_waiting_still_takes_the_place_of_what_is_older():
    queue = OfferQueue(9)
    queue.put([key('a', 1)])
    assert queue.put([key('a', 2)], settled=[key('a', 2)]) == [key('a', 1)]
    assert len(queue) == 0
    assert queue.take() is None


def test_one_key_can_be_taken_out():
    queue = OfferQueue(9)
    queue.put([key('a', 1), key('a', 2)])
    assert queue.discard(key('a', 1))
    assert not queue.discard(key('a', 1))
    assert key('a', 1) not in queue
    assert all_of(queue) == [key('a', 2)]


offers = st.tuples(st.sampled_from('abc'), st.integers(1, 3))


@settings(deadline=None)
@given(st.integers(0, 4), st.lists(st.one_of(st.none(), offers)))
@example(3, [('b', 3), ('a', 1), None, ('a', 2), None])
def test_nothing_is_lost_or_doubled_and_no_camera_waits_for_two_turns_of_another(bound, steps):
    queue = OfferQueue(bound)
    waiting, turns, number = [], {}, 0
    for step in steps:
        if step is None:
            taken = queue.take()
            assert (taken is None) == (not waiting)
            if taken is None:
                continue
            waiting.remove(taken)
            camera = taken.frames[0].camera
            turns.pop(camera, None)
            for other in {each.frames[0].camera for each in waiting} - {camera}:
                seen = turns.setdefault(other, [])
                assert camera not in seen, 'that camera had its turn, this one waits since'
                seen.append(camera)
            continue
        camera, count = step
        offer = [key(camera, number + each) for each in range(count)]
        number += count
        gone = queue.put(offer)
        assert len(gone) == len(set(gone))
        waiting = [each for each in [*waiting, *offer] if each not in gone]
        assert all(each in queue for each in waiting)
        assert len(queue) == len(waiting) <= bound
        cameras = {each.frames[0].camera for each in waiting}
        turns = {name: seen for name, seen in turns.items() if name in cameras}
