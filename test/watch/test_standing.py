"""The state machine of one watch."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watch.conftest import Hand

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.watch import (
    Blindness,
    Decision,
    EventKind,
    Missed,
    Verdict,
    WatchMode,
    WatchPhase,
    missed_by,
)

GONE = Missed(Blindness.CAMERA, 'no camera')


def test_an_event_begins_and_ends_by_n_of_m(hand):
    one = hand(begin_looks=2, begin_of=3, end_looks=3, end_of=3)
    one.looks('nyn')
    assert one.kinds == []
    one.looks('y')
    assert one.kinds == ['BEGIN'], 'two of the last three'
    one.looks('nynn')
    assert one.kinds == ['BEGIN'], 'never three in a row'
    one.looks('n')
    assert one.kinds == ['BEGIN', 'END']
    begin, end = one.said
    assert begin.event_id == end.event_id != ''
    assert begin.verdict.answer == 'yes'
    assert end.verdict.answer == 'no'
    assert end.duration_s == pytest.approx(5.0)
    assert begin.decided_ns == begin.verdict.evidence_ns + 1000 * 10**9


def test_an_answer_that_flickers_is_no_event(hand):
    one = hand(begin_looks=3, begin_of=3)
    one.looks('yynyyn' * 20)
    assert one.said == []
    assert one.watch.counts.looks == 120
    one.looks('yyy' + 'nyy' * 20)
    assert one.kinds == ['BEGIN'], 'nor does a flicker end one'
    assert one.watch.counts.still_on == 40


def test_the_cooldown_holds_events_back_and_is_counted_apart_from_still_on(hand):
    one = hand(begin_looks=1, begin_of=1, end_looks=1, end_of=1, cooldown_s=5.0)
    one.looks('yyyn')
    assert one.kinds == ['BEGIN', 'END']
    one.looks('yny')
    counts = one.watch.counts
    assert (counts.events, counts.still_on, counts.cooled_down) == (1, 2, 2)
    assert one.kinds == ['BEGIN', 'END']
    one.looks('yyy')
    assert one.kinds == ['BEGIN', 'END', 'BEGIN'], 'it is on still when the time is over'
    assert counts.cooled_down == 2


def test_an_event_that_goes_on_is_said_again_as_often_as_asked(hand):
    one = hand(heartbeat_s=3.0)
    one.looks('yy' + 'y' * 9)
    assert one.kinds == ['BEGIN'] + ['STILL_ON'] * 3
    assert len({event.event_id for event in one.said}) == 1
    durations = [event.duration_s for event in one.said]
    assert durations == sorted(durations)


def test_an_unsure_look_is_no_vote(hand):
    one = hand(min_probability=0.8, begin_looks=2, begin_of=2)
    for probability in (0.9, 0.7, 0.79):
        one.look('yes', probability=probability)
    assert one.said == []
    assert one.watch.facts().phase is WatchPhase.UNSURE
    one.look('yes', probability=0.8)
    assert one.kinds == ['BEGIN']
    assert one.watch.counts.unsure == 2
    one.looks('?')
    assert one.watch.facts().phase is WatchPhase.UNSURE
    assert one.watch.facts().event_on


def test_of_choices_those_that_mean_the_event_count(hand):
    one = hand(choices=('box', 'ball', 'nothing'), when=('BOX', 'ball'), begin_looks=2, begin_of=2)
    one.look('nothing')
    one.look('box')
    one.look('ball')
    assert one.kinds == ['BEGIN']


def test_an_unchanged_scene_is_not_looked_at_once_all_is_decided(hand):
    one = hand(every_look=False, look_anyway_s=10.0)
    became = [one.look('no') for _ in range(13)]
    assert became == [Decision.LOOK, *[Decision.UNCHANGED] * 9, Decision.LOOK, *became[11:]]
    assert one.watch.counts.unchanged == 11
    one.look('yes', scene=160)
    assert one.decisions[-1] is Decision.LOOK, 'the scene has changed'
    one.look('yes', scene=160)
    assert one.decisions[-1] is Decision.LOOK, 'what is being decided is decided by looks'
    assert one.kinds == ['BEGIN']
    one.look('yes', scene=160)
    assert one.decisions[-1] is Decision.UNCHANGED


def test_a_clip_is_unchanged_only_when_all_of_it_is_at_rest(hand):
    one = hand(every_look=False, last_seconds=3.0)
    one.look('no')
    became = [one.look('no', scene=200) for _ in range(7)]
    assert became[:4] == [Decision.LOOK] * 4, 'the clip shows the change still'
    assert became[4:] == [Decision.UNCHANGED] * 3


def test_looks_that_cannot_be_taken_are_counted_by_their_reason(hand):
    one = hand()
    one.due(GONE)
    one.due(3)
    assert one.due() is Decision.LOOK
    one.keep(one.watch.failed(one.watch.look_id, one.now, missed_by(ErrorCode.DEVICE, 'broken')))
    one.tick(4.0)
    missed = one.watch.counts.missed
    assert dict(missed) == {
        Blindness.CAMERA: 1,
        Blindness.DARK: 1,
        Blindness.ERROR: 1,
        Blindness.BUSY: 3,
    }
    assert one.watch.counts.missed_share == 1.0
    one.look('no')
    assert one.watch.counts.missed_share == pytest.approx(6 / 7)


def test_blind_it_says_so_once_keeps_its_event_and_forgets_its_votes(hand):
    one = hand(begin_looks=2, begin_of=2)
    one.looks('nyy')
    for _ in range(6):
        one.due(GONE)
    assert one.kinds == ['BEGIN', 'BLIND']
    facts = one.watch.facts()
    assert (facts.phase, facts.event_on) == (WatchPhase.BLIND, True)
    assert (facts.blindness, facts.message) == (Blindness.CAMERA, 'no camera')
    assert one.said[-1].verdict is None
    one.looks('n')
    assert one.kinds == ['BEGIN', 'BLIND', 'SIGHT']
    one.looks('n')
    assert one.kinds[-1] == 'END'
    one.looks('y')
    for _ in range(6):
        one.due(GONE)
    one.looks('y')
    assert one.kinds[-2:] == ['BLIND', 'SIGHT'], 'the vote from before counts no more'


def test_a_slow_look_is_no_blindness_once_it_is_known_what_a_look_takes(hand):
    one = hand()
    for _ in range(6):
        one.due()
        for _ in range(6):
            one.tick(1.0)
        verdict = Verdict('no', None, one.now.steady_ns)
        one.keep(one.watch.answered(one.watch.look_id, one.now, verdict))
    assert one.watch.counts.missed[Blindness.BUSY] > 20
    assert one.watch.counts.missed_share > 0.5
    assert one.kinds == ['BLIND', 'SIGHT'], 'of the first one it was not known'


def test_a_busy_chip_leaves_a_look_due_until_the_next_one_is(hand):
    one = hand()
    assert one.due(may_look=False) is Decision.WAIT
    assert one.watch.is_due(one.now)
    assert one.look('no') is Decision.LOOK
    assert one.watch.counts.missed[Blindness.BUSY] == 0


def test_muted_it_is_silent_and_what_it_said_before_is_ended(hand):
    one = hand(mode=WatchMode.MUTED)
    one.looks('yyyy')
    assert one.said == []
    assert one.watch.facts().event_on
    one.keep(one.watch.set_mode(WatchMode.ON, one.now))
    one.keep(one.watch.set_mode(WatchMode.MUTED, one.now))
    one.looks('nnnn')
    assert one.kinds == ['BEGIN', 'END']
    assert one.said[-1].text == 'the watch was muted'


def test_off_it_does_not_look_and_a_late_answer_is_nothing(hand):
    one = hand(begin_looks=1, begin_of=1)
    one.due()
    one.keep(one.watch.set_mode(WatchMode.OFF, one.now))
    one.keep(one.watch.answered(one.watch.look_id, one.now, None))
    one.tick(60.0)
    assert not one.watch.is_due(one.now)
    assert one.said == []
    assert one.watch.counts.missed.total() == 0
    one.keep(one.watch.set_mode(WatchMode.ON, one.now))
    assert one.watch.is_due(one.now)
    one.looks('y')
    assert one.kinds == ['BEGIN']


def test_stopped_with_an_event_on_it_ends_it(hand):
    one = hand()
    one.looks('yy')
    one.keep(one.watch.stop(one.now, 'the node is not active'))
    assert one.kinds == ['BEGIN', 'END']
    assert (one.said[-1].text, one.said[-1].verdict) == ('the node is not active', None)
    assert one.watch.facts().phase is WatchPhase.OFF
    one.watch.go_on(one.now)
    one.looks('yy')
    assert one.kinds == ['BEGIN', 'END', 'BEGIN']


STEPS = st.one_of(
    st.sampled_from(['y', 'n', '?', 'gone', 'dark', 'fail', 'leave', 'stop', 'go']),
    st.sampled_from(list(WatchMode)),
    st.floats(0.0, 20.0),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(1, 3), st.floats(0.0, 5.0))
def test_whatever_happens_events_come_in_pairs_and_looks_are_counted_once(steps, looks, cooldown):
    one = Hand(begin_looks=looks, begin_of=3, end_looks=looks, end_of=3, cooldown_s=cooldown)
    for step in steps:
        take(one, step)
    one.keep(one.watch.stop(one.now, 'the end'))
    pairs = [kind for kind in one.kinds if kind in {'BEGIN', 'END'}]
    assert pairs == ['BEGIN', 'END'] * (len(pairs) // 2)
    open_id = ''
    for event in one.said:
        if event.kind is EventKind.BEGIN:
            open_id = event.event_id
        assert event.event_id == open_id
        if event.kind is EventKind.END:
            open_id = ''
    sights = [kind for kind in one.kinds if kind in {'BLIND', 'SIGHT'}]
    is_broken_off = 'stop' in steps or WatchMode.OFF in steps
    assert is_broken_off or all(a != b for a, b in pairwise(sights))


def take(one, step):
    """Do one step of a life."""
    if isinstance(step, WatchMode):
        one.keep(one.watch.set_mode(step, one.now))
    elif isinstance(step, float):
        one.tick(step)
    elif step == 'stop':
        one.keep(one.watch.stop(one.now, 'stopped'))
    elif step == 'go':
        one.watch.go_on(one.now)
    elif one.watch.is_due(one.now) or (not one.watch.is_off and step != 'leave'):
        take_look(one, step)


def take_look(one, step):
    """Let a look fall due, if none is under way, and let it come to something."""
    if not one.watch.is_due(one.now):
        one.tick(1.0)
    if not one.watch.is_due(one.now):
        return
    if step in {'y', 'n', '?'}:
        one.looks(step)
    elif step == 'leave':
        one.due()
    elif step == 'fail':
        if one.due() is Decision.LOOK:
            one.keep(one.watch.failed(one.watch.look_id, one.now, GONE))
    else:
        one.due(GONE if step == 'gone' else 3)
