"""The frames that the next question will show: what is added, what goes, and when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_vlm_ros.core import (
    NS_PER_S,
    BadFrame,
    CompressedImage,
    FrameSource,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.scheduling import WatchedWindow, WindowSettings
from edge_vlm_ros.scheduling.watched_window import RETRY_NS
from edge_vlm_ros.vision import Thumbnail

S = NS_PER_S


def look(scene):
    """Return what a look at a picture of some brightness shows."""
    return Thumbnail(np.full((4, 4, 1), scene, np.uint8), ('grey',))


def frame(seconds, camera='front'):
    source = FrameSource(camera, f'/{camera}')
    now_ns = round(seconds * S)
    return StoredFrame(source, now_ns, CompressedImage('jpeg', b'x'), received_ns=now_ns + 1)


def bad(of):
    return BadFrame(of.source, of.stamp_ns, of.received_ns, 'damaged')


def window(frames=1, cameras=('front',), **changes):
    return WatchedWindow(cameras, WindowSettings(frames, **changes))


def show(seen, seconds, scene, camera='front', **options):
    """Show a camera's newest frame; return it."""
    shown = frame(seconds, camera)
    seen.see(shown, look(scene), round(seconds * S), **options)
    return shown


def times(seen):
    return [each.stamp_ns // S for each in seen.frames]


def test_a_still_takes_the_place_of_the_one_before_when_the_scene_has_changed():
    seen = window()
    assert not seen.is_complete
    show(seen, 1, 10)
    assert seen.is_complete
    show(seen, 5, 12)  # noise
    assert times(seen) == [1]
    show(seen, 6, 90)
    assert times(seen) == [6]
    assert seen.shown_as is ShownAs.ALONE
    assert (seen.counts.added, seen.counts.restarts) == (2, 0)


def test_a_longer_window_grows_by_changes_and_shows_even_its_first_among_others():
    seen = window(4)
    assert seen.shown_as is ShownAs.AMONG_OTHERS
    for second, scene in enumerate((0, 0, 90, 90, 180)):
        show(seen, 2 * second, scene)
    assert times(seen) == [0, 4, 8]


def test_a_full_window_begins_anew_with_its_newest_and_remembers_what_it_was():
    seen = window(6, keep=2)
    for second in range(7):
        show(seen, 2 * second, 100 * (second % 2))
    assert times(seen) == [10, 12]
    assert [each.stamp_ns // S for each in seen.previous] == [0, 2, 4, 6, 8, 10]
    assert seen.left_out.stamp_ns == 8 * S
    assert seen.counts.restarts == 1


@pytest.mark.parametrize(('frames', 'kept'), [(2, 1), (3, 1), (6, 2), (8, 2), (9, 3)])
def test_a_third_is_kept_unless_said_otherwise_and_one_at_least(frames, kept):
    seen = window(frames)
    for second in range(frames + 1):
        show(seen, 2 * second, 100 * (second % 2))
    assert len(seen.frames) == kept


def test_a_window_that_keeps_all_could_not_grow():
    seen = window(2, keep=5)
    for second in range(10):
        show(seen, 2 * second, 100 * (second % 2))
        assert len(seen.frames) <= 2


def test_a_change_waits_for_the_shortest_period_and_is_not_forgotten():
    seen = window(min_period_ns=3 * S)
    show(seen, 0, 0)
    show(seen, 1, 90)
    assert times(seen) == [0]
    show(seen, 3, 90)
    assert times(seen) == [3]


def test_a_conversation_that_is_live_does_not_wait():
    seen = window(min_period_ns=3 * S)
    show(seen, 0, 0)
    show(seen, 1, 90, is_live=True)
    assert times(seen) == [1]
    show(seen, 2, 90, is_live=True)
    assert times(seen) == [1]  # nor is anything added that has not changed


def test_after_the_longest_period_a_frame_is_added_whatever_it_shows():
    seen = window(max_period_ns=10 * S)
    show(seen, 0, 0)
    show(seen, 9, 0)
    assert times(seen) == [0]
    show(seen, 10, 0)
    assert times(seen) == [10]
    never = window(max_period_ns=0)
    show(never, 0, 0)
    show(never, 10**6, 0)
    assert times(never) == [0]


def test_a_slow_drift_adds_up():
    seen = window()
    for second in range(20):
        show(seen, 2 * second, 3 * second)
    assert seen.counts.added > 3


def test_a_frame_is_looked_at_once():
    seen = window()
    first = show(seen, 0, 0)
    assert not seen.wants_look(first, 5 * S)
    second = frame(4)
    assert seen.wants_look(second, 5 * S)
    seen.see(second, look(0), 5 * S)
    assert not seen.wants_look(second, 6 * S)


def test_a_frame_that_cannot_be_looked_at_has_changed_and_is_of_no_use_ahead():
    seen = window()
    show(seen, 0, 0)
    broken = frame(5)
    assert seen.has_changed(broken, None)
    assert not seen.see(broken, None, 5 * S)
    assert times(seen) == [0]
    show(seen, 6, 90)
    assert times(seen) == [6]


def test_the_same_frame_has_not_changed_even_where_no_look_was_taken():
    seen = window()
    asked = frame(1)
    seen.add(asked, None, S)
    assert not seen.has_changed(asked, None)
    assert seen.has_changed(frame(2), look(0))


def test_an_older_frame_is_not_added_after_a_newer_one():
    seen = window(3)
    show(seen, 5, 0)
    assert not seen.add(frame(4), look(90), 6 * S)
    assert not seen.add(frame(5), look(90), 6 * S)
    assert times(seen) == [5]


def test_stills_of_several_cameras_stand_in_the_order_of_the_cameras():
    seen = window(cameras=('front', 'rear'))
    show(seen, 0, 0, 'rear')
    assert not seen.is_complete
    show(seen, 1, 0, 'front')
    show(seen, 3, 90, 'front')
    assert [each.source.camera for each in seen.frames] == ['front', 'rear']
    assert times(seen) == [3, 0]
    assert seen.shown_as is ShownAs.ONE_OF_IMAGES


def test_a_joint_window_that_begins_anew_keeps_a_frame_of_each_camera():
    seen = window(4, cameras=('front', 'rear'), keep=1)
    show(seen, 0, 0, 'rear')
    for second in range(1, 5):
        show(seen, 2 * second, 100 * (second % 2))
    assert [each.source.camera for each in seen.frames] == ['rear', 'front']
    assert times(seen) == [0, 8]


def test_damaged_frames_go_and_the_others_stay():
    seen = window(4)
    shown = [show(seen, 2 * second, 100 * (second % 2)) for second in range(3)]
    seen.drop([bad(shown[1]), bad(frame(77))])
    assert seen.frames == (shown[0], shown[2])
    assert seen.counts.restarts == 1
    seen.drop([bad(frame(77))])
    assert seen.counts.restarts == 1


def test_what_was_before_goes_with_a_damaged_frame():
    seen = window(2)
    shown = [show(seen, 2 * second, 100 * (second % 2)) for second in range(3)]
    assert seen.previous == (shown[0], shown[1])
    seen.drop([bad(shown[0])])
    assert seen.previous == ()


def test_a_model_that_takes_fewer_frames_makes_the_window_shorter_for_good():
    seen = window(8, keep=2)
    for second in range(6):
        show(seen, 2 * second, 100 * (second % 2))
    seen.fit(4)
    assert times(seen) == [8, 10]
    seen.fit(0)
    seen.fit(6)
    for second in range(6, 20):
        show(seen, 2 * second, 100 * (second % 2))
        assert len(seen.frames) <= 4


def test_what_cannot_be_made_ready_is_left_behind_with_the_next_frame():
    seen = window(4)
    for second in range(3):
        show(seen, 2 * second, 100 * (second % 2))
    seen.spoil()
    assert len(seen.frames) == 3
    show(seen, 6, 255)
    assert times(seen) == [6]


def test_keyframes_stay_in_front_when_a_full_window_begins_anew():
    seen = window(5, keep=2, keyframes=1)
    for second in range(9):
        show(seen, 2 * second, 100 * (second % 2))
        assert times(seen)[0] == 0, 'the first stays the first, so its rows stay, too'
        assert len(seen.frames) <= 5
    assert times(seen) == [0, 14, 16]
    seen.spoil()
    show(seen, 18, 255)
    assert times(seen) == [18], 'what cannot be made ready is left behind whole'


def test_pinned_frames_leave_room_for_the_newest_and_for_growth():
    seen = window(3, keyframes=60)
    for second in range(12):
        show(seen, 2 * second, 100 * (second % 2))
        assert times(seen)[-1] == 2 * second
    assert times(seen)[0] == 0
    assert times(window(1, keyframes=5)) == []


@pytest.mark.parametrize('frames', [1, 4])
def test_what_failed_is_tried_again_soon_in_a_scene_that_stands_still(frames):
    seen = window(frames, max_period_ns=0)
    for second in range(12):
        show(seen, second, 90)
        if second == 3:
            seen.spoil()
    assert times(seen) == [5], 'five seconds after the one that failed, and once'


def test_nothing_is_left_when_the_clock_has_jumped():
    seen = window(2)
    for second in range(5):
        show(seen, 2 * second, 100 * (second % 2))
    seen.clear()
    assert (seen.frames, seen.previous, seen.left_out) == ((), (), None)
    show(seen, 20, 0)
    assert times(seen) == [20]


class WindowMachine(RuleBasedStateMachine):
    """Plays cameras, clock, model and people."""

    @initialize(
        frames=st.integers(1, 6),
        keep=st.integers(0, 6),
        cameras=st.sampled_from([('front',), ('front', 'rear'), ('rear', 'front', 'side')]),
        most=st.integers(0, 20),
    )
    def begin(self, frames, keep, cameras, most):
        self.window = WatchedWindow(
            cameras, WindowSettings(frames, keep, 2 * S, most * S, threshold=12)
        )
        self.now = 0
        self.scenes = {}
        self.added_at = {}
        self.dropped = set()
        self.fits = 99
        self.before = ()
        self.may_shrink = True
        self.has_failed = False

    def name(self, data):
        return data.draw(st.sampled_from(self.window.cameras))

    def come(self, camera, scene):
        """Have a frame come, a moment later than all before; return it and a look at it."""
        self.now += 1
        new = StoredFrame(
            FrameSource(camera), self.now, CompressedImage('jpeg', b'x'), received_ns=self.now
        )
        self.scenes[self.now] = scene
        return new, look(scene)

    def note(self, new, *, was_added):
        frames = self.window.frames
        if not was_added:
            assert frames == self.before
            return
        self.added_at[new.received_ns] = self.now
        self.has_failed = False
        assert new in frames
        if not self.window.holds_stills:
            assert frames[-1] is new
            is_longer = frames[: len(self.before)] == self.before
            assert is_longer or self.window.previous == self.before

    @rule(data=st.data(), scene=st.sampled_from([0, 6, 100, 106, 200]), is_live=st.booleans())
    def see(self, data, scene, is_live):
        camera = self.name(data)
        self.before = self.window.frames
        newest = self.window.newest(camera)
        new, seen = self.come(camera, scene)
        was_added = self.window.see(new, seen, self.now, is_live=is_live)
        if newest is not None:
            since = self.now - self.added_at[newest.received_ns]
            is_other = abs(self.scenes[newest.received_ns] - scene) > 12
            most = self.window.settings.max_period_ns
            if self.has_failed:
                most = min(most or RETRY_NS, RETRY_NS)
            is_due = is_live or since >= 2 * S
            assert was_added == (is_due and (is_other or 0 < most <= since))
        else:
            assert was_added
        self.note(new, was_added=was_added)

    @rule(data=st.data(), scene=st.integers(0, 255))
    def hint(self, data, scene):
        self.before = self.window.frames
        new, seen = self.come(self.name(data), scene)
        assert self.window.add(new, seen, self.now)
        self.note(new, was_added=True)

    @rule(data=st.data())
    def damage(self, data):
        self.before = self.window.frames
        new, _ = self.come(self.name(data), 0)
        assert not self.window.see(new, None, self.now)
        self.note(new, was_added=False)

    @rule(seconds=st.integers(0, 8))
    def wait(self, seconds):
        self.now += seconds * S

    @rule(frames=st.integers(0, 6))
    def fit(self, frames):
        self.fits = min(self.fits, frames) if frames else self.fits
        self.window.fit(frames)

    @precondition(lambda self: self.window.frames)
    @rule(data=st.data())
    def drop(self, data):
        chosen = data.draw(st.lists(st.sampled_from(self.window.frames), max_size=2))
        self.window.drop([bad(each) for each in chosen])
        self.dropped |= {each.received_ns for each in chosen}

    @rule()
    def spoil(self):
        self.has_failed = True
        self.window.spoil()

    @rule()
    def clear(self):
        self.has_failed = False
        self.window.clear()
        assert not self.window.frames

    @invariant()
    def holds_what_it_may(self):
        if not hasattr(self, 'window'):
            return
        held = self.window
        most = min(held.settings.frames, self.fits)
        assert len(held.frames) <= max(most, len(held.cameras))
        arrivals = [each.received_ns for each in held.frames]
        assert not self.dropped & set(arrivals)
        assert not self.dropped & {each.received_ns for each in held.previous}
        assert len(set(arrivals)) == len(arrivals)
        if held.holds_stills:
            places = [held.cameras.index(each.source.camera) for each in held.frames]
            assert places == sorted(set(places))
        else:
            assert arrivals == sorted(arrivals)


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(stateful_step_count=40)
