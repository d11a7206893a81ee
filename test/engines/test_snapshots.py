"""A cache that cannot be cut: it goes on, is dropped, or goes back to a snapshot."""

import pytest

from edge_vlm_ros.core import ModelFileError, text_part
from edge_vlm_ros.engines.kv_length import KvLength
from edge_vlm_ros.engines.scripted.engine import ScriptedEngine
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models import find_model


def cache(snapshots, tokens=0):
    made = KvLength(snapshots)
    made.grow(tokens)
    return made


def lengths(kv):
    """Every length that a cache goes back to; each is tried on a copy of it."""
    return [length for length in range(kv.length + 1) if _goes_back(kv, length)]


def _goes_back(kv, length):
    copy = KvLength(kv._most)
    copy._length, copy._snapshots = kv._length, set(kv._snapshots)
    try:
        copy.truncate(length)
    except ValueError:
        return False
    return copy.length == length


def test_a_state_goes_back_to_nothing_and_to_its_snapshots():
    kv = cache(2, 3)
    kv.take_snapshot()
    kv.take_snapshot()  # once is enough
    kv.grow(4)
    assert lengths(kv) == [0, 3, 7]
    with pytest.raises(ValueError, match=r'from 7 tokens to 5: .* its snapshots are of 3$'):
        kv.truncate(5)
    assert kv.length == 7


def test_what_lies_after_where_it_goes_back_to_is_forgotten():
    kv = cache(3)
    for _ in range(3):
        kv.grow(2)
        kv.take_snapshot()
    kv.grow(2)
    kv.truncate(4)
    kv.grow(6)
    assert lengths(kv) == [0, 2, 4, 10]


def test_no_more_snapshots_are_kept_than_there_may_be():
    kv = cache(1, 2)
    kv.take_snapshot()
    kv.grow(1)
    with pytest.raises(ValueError, match=r'^1 snapshots are kept'):
        kv.take_snapshot()
    kv.drop_snapshot(2)
    kv.drop_snapshot(2)
    kv.take_snapshot()
    kv.grow(1)
    assert lengths(kv) == [0, 3, 4]


def test_a_cache_that_can_be_cut_needs_none():
    kv = cache(None, 5)
    kv.take_snapshot()
    assert lengths(kv) == [0, 1, 2, 3, 4, 5]


def test_a_state_that_was_brought_back_is_the_one_that_was_kept():
    limits = {'can_truncate': False, 'snapshots': 2, 'kv_slots': 2}
    engine = ScriptedEngine(find_model('scripted'), Script.from_mapping({'limits': limits}))
    engine.prefill(text_part((1, 2, 3), 0), {})
    engine.kv.take_snapshot()
    engine.decode(4, 3)
    engine.select_kv(1)
    engine.prefill(text_part((7,), 0), {})
    engine.select_kv(0)
    engine.kv.truncate(3)
    assert engine.kv.tokens == [1, 2, 3]
    engine.decode(5, 3)
    assert engine.kv.tokens == [1, 2, 3, 5]
    engine.kv.truncate(0)
    engine.prefill(text_part((6,), 0), {})
    assert engine.kv.tokens == [6]
    engine.close()


def test_a_script_says_what_its_cache_can():
    with pytest.raises(ModelFileError, match='of a cache that cannot be cut, not 3'):
        Script.from_mapping({'limits': {'snapshots': 3}})
    limits = Script.from_mapping({'limits': {'can_truncate': False, 'snapshots': 3}}).limits
    assert (limits.can_truncate, limits.snapshots) == (False, 3)
