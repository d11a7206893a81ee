"""The ledger keeps its bounds, forgets the least recently used, spares what is in use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import ArrivalTime, FeatureKey, FrameKey, ShownAs
from edge_vlm_ros.scheduling import FeatureLedger


def frame(number):
    key = FrameKey('front', '/image', number, ArrivalTime(number))
    return FeatureKey((key,), ShownAs.ALONE)


def test_the_least_recently_used_frame_goes_first():
    ledger = FeatureLedger(max_frames=2, max_bytes=1000)
    ledger.add(frame(1), 10)
    ledger.add(frame(2), 10)
    ledger.pin([frame(1)])
    ledger.pin([])
    assert ledger.add(frame(3), 10) == [frame(2)]


def test_a_frame_in_use_is_kept_above_the_bound_and_goes_when_it_is_not():
    ledger = FeatureLedger(max_frames=1, max_bytes=1000)
    ledger.pin([frame(1), frame(2)])
    assert ledger.add(frame(1), 10) == []
    assert ledger.add(frame(2), 10) == []
    assert ledger.pin([]) == [frame(1)]


def test_bytes_are_bounded_too():
    ledger = FeatureLedger(max_frames=9, max_bytes=100)
    ledger.add(frame(1), 60)
    assert ledger.add(frame(2), 60) == [frame(1)]
    assert ledger.nbytes == 60


def test_a_frame_larger_than_the_bound_is_not_kept():
    ledger = FeatureLedger(max_frames=9, max_bytes=100)
    assert ledger.add(frame(1), 101) == [frame(1)]
    assert len(ledger) == ledger.nbytes == 0


def test_features_made_again_count_once():
    ledger = FeatureLedger(max_frames=9, max_bytes=100)
    ledger.add(frame(1), 60)
    assert ledger.add(frame(1), 50) == []
    assert ledger.nbytes == 50


@given(
    st.integers(0, 4),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30))),
)
def test_bounds_hold_whatever_comes(max_frames, max_bytes, additions):
    ledger = FeatureLedger(max_frames=max_frames, max_bytes=max_bytes)
    kept = {}
    for number, nbytes in additions:
        kept[frame(number)] = nbytes
        for victim in ledger.add(frame(number), nbytes):
            del kept[victim]
        assert len(ledger) == len(kept) <= max_frames
        assert ledger.nbytes == sum(kept.values()) <= max_bytes
        assert all(key in ledger for key in kept)
