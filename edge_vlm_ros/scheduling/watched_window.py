"""Which frames the next question will show, kept up before anybody asks.

A prompt's beginning can be made ahead as long as it only grows. So a window of several frames is a
list that frames are added to; where it is full it begins anew with the newest few of them. A
window of one frame a camera (stills) shows the newest alone, and each takes the place of the one
before.

When to add a frame is decided by a look at it (`vision.change`): a picture like the last one costs
nothing but the look. A look can miss what is small or slow, so a frame is added once in a while
all the same.

Holds frames, looks into none; has no clock: time is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S, ShownAs
from edge_vlm_ros.vision.change import THRESHOLD, has_changed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_vlm_ros.core import BadFrame, StoredFrame
    from edge_vlm_ros.vision.change import Thumbnail


RETRY_NS = 5 * NS_PER_S
"""So long after a failure another frame is taken, whether or not a change is seen."""


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How a window grows.

    Attributes:
        frames: Most that it holds; 1 = stills, the newest of each camera.
        keep: Frames with which a full one begins anew, the new one counted; 0 = a third.
        min_period_ns: No camera adds frames faster, unless a conversation is live.
        max_period_ns: After so long one is added whether or not a change is seen; 0 = never.
        threshold: Of `has_changed`.
        keyframes: So many of the first frames are pinned: they stay when a full one begins anew,
            and so do their rows in the KV cache.
    """

    frames: int = 1
    keep: int = 0
    min_period_ns: int = NS_PER_S
    max_period_ns: int = 60 * NS_PER_S
    threshold: float = THRESHOLD
    keyframes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A frame of the window, what a look at it showed, and when it was added (steady time)."""

    frame: StoredFrame
    look: Thumbnail | None
    added_ns: int


@dataclass(slots=True)
class WindowCounts:
    """What has happened to a window.

    Attributes:
        added: Frames.
        restarts: How often it did not go on from what it held.
    """

    added: int = 0
    restarts: int = 0


class WatchedWindow:
    """The frames of one watch: one camera, or several whose frames stand in one prompt.

    Stills stand in the order of the cameras, the frames of a longer window in the order in which
    they were added. One thread.

    Args:
        cameras: By name, each once; each has a frame in a window that can be shown.
        settings: How it grows.

    Attributes:
        cameras: As above.
        settings: As above.
        counts: What has happened to it.
        previous: What it held before it last began anew: while that is still ready, a question may
            be asked about it.
        left_out: The newest frame that it gave up to make room.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        settings: WindowSettings = WindowSettings(),
    ) -> None:
        self.cameras = tuple(cameras)
        self.settings = settings
        self.counts = WindowCounts()
        self.previous: tuple[StoredFrame, ...] = ()
        self.left_out: StoredFrame | None = None
        self._kept: list[_Kept] = []
        self._looked_at: dict[str, StoredFrame] = {}
        self._most = settings.frames
        self._is_spoiled = False
        self._has_failed = False

    @property
    def frames(self) -> tuple[StoredFrame, ...]:
        """The frames, in the order of the prompt."""
        return tuple(kept.frame for kept in self._kept)

    @property
    def is_complete(self) -> bool:
        """Whether each camera has a frame in it."""
        return {kept.frame.source.camera for kept in self._kept} == set(self.cameras)

    @property
    def holds_stills(self) -> bool:
        """Whether it shows the newest frame of each camera and no other."""
        return self.settings.frames == 1

    @property
    def capacity(self) -> int:
        """Most frames that it holds now: fewer than wanted where the model takes fewer."""
        return max(self._most, len(self.cameras))

    @property
    def shown_as(self) -> ShownAs:
        """How its frames are shown, whatever their number is just now."""
        if not self.holds_stills:
            return ShownAs.AMONG_OTHERS
        return ShownAs.ALONE if len(self.cameras) == 1 else ShownAs.ONE_OF_IMAGES

    def newest(self, camera: str) -> StoredFrame | None:
        """Return the newest frame of a camera in it; None = there is none."""
        kept = self._newest(camera)
        return kept.frame if kept is not None else None

    def wants_look(self, frame: StoredFrame, now_ns: int, *, is_live: bool = False) -> bool:
        """Return whether a look at a camera's newest frame can lead to anything.

        Args:
            frame: The camera's newest.
            now_ns: Steady time, nanoseconds.
            is_live: Somebody is talking with the robot: changes are followed at once.
        """
        camera = frame.source.camera
        kept = self._newest(camera)
        if kept is None:
            return frame is not self._looked_at.get(camera)
        is_newer = frame.received_ns > kept.frame.received_ns
        if not is_newer or frame is self._looked_at.get(camera):
            return False
        return is_live or now_ns - kept.added_ns >= self.settings.min_period_ns

    def see(
        self, frame: StoredFrame, look: Thumbnail | None, now_ns: int, *, is_live: bool = False
    ) -> bool:
        """Take note of a look; add the frame if the scene has changed, and return whether it was.

        Args:
            frame: The camera's newest.
            look: At the frame; None = it cannot be decoded, so it is of no use ahead.
            now_ns: Steady time, nanoseconds.
            is_live: As for `wants_look`.
        """
        if not self.wants_look(frame, now_ns, is_live=is_live):
            return False
        self._looked_at[frame.source.camera] = frame
        if look is None:
            return False
        if self.has_changed(frame, look) or self._is_overdue(frame, now_ns):
            return self.add(frame, look, now_ns)
        return False

    def has_changed(self, frame: StoredFrame, look: Thumbnail | None) -> bool:
        """Return whether a camera's frame shows something else than its newest in the window.

        Args:
            frame: The camera's newest.
            look: At the frame; None = it cannot be decoded, which counts as a change.
        """
        kept = self._newest(frame.source.camera)
        if kept is None:
            return True
        if kept.frame is frame:
            return False
        return has_changed(kept.look, look, self.settings.threshold)

    def add(self, frame: StoredFrame, look: Thumbnail | None, now_ns: int) -> bool:
        """Add a frame whatever it shows; return whether it was newer than what is there.

        Args:
            frame: Of one of the cameras.
            look: At the frame; None = none was taken.
            now_ns: Steady time, nanoseconds.
        """
        camera = frame.source.camera
        kept = self._newest(camera)
        if kept is not None and frame.received_ns <= kept.frame.received_ns:
            return False
        self._looked_at[camera] = frame
        new = _Kept(frame, look, now_ns)
        self.counts.added += 1
        if self.holds_stills:
            others = [each for each in self._kept if each.frame.source.camera != camera]
            self._kept = sorted([*others, new], key=self._place)
        elif self._is_spoiled or len(self._kept) >= self.capacity:
            pinned = 0 if self._is_spoiled else self._pinned
            self._restart([*self._kept, new], 1 if self._is_spoiled else self._keep, pinned)
        else:
            self._kept.append(new)
        self._is_spoiled = self._has_failed = False
        return True

    def fit(self, frames: int) -> None:
        """Hold no more frames than this: the model takes no more. 0 = as many as are wanted."""
        self._most = min(self._most, frames) if frames else self._most
        if len(self._kept) > self.capacity and not self.holds_stills:
            self._restart(self._kept, self._keep, self._pinned)

    def drop(self, bad_frames: Iterable[BadFrame]) -> None:
        """Forget frames that turned out to be damaged."""
        bad = {(each.source.camera, each.stamp_ns, each.received_ns) for each in bad_frames}
        good = [kept for kept in self._kept if _name(kept.frame) not in bad]
        if len(good) < len(self._kept):
            self._kept = good
            self.counts.restarts += 1
        if any(_name(frame) in bad for frame in self.previous):
            self.previous = ()

    def spoil(self) -> None:
        """Begin anew with the next frame: what is held cannot be made ready, nobody knows why.

        That frame is taken soon, whether or not it shows a change: what failed once may not again.
        """
        self._has_failed = True
        self._is_spoiled = not self.holds_stills

    def forget_previous(self) -> None:
        """Forget what it held before it last began anew: that is not ready any more."""
        self.previous = ()

    def clear(self) -> None:
        """Forget all frames: the clock has jumped, or the cameras are gone."""
        self._kept.clear()
        self._looked_at.clear()
        self.previous = ()
        self.left_out = None
        self._is_spoiled = self._has_failed = False

    @property
    def _keep(self) -> int:
        """Frames with which a full one begins anew: fewer than it holds, so that it can grow."""
        wanted = self.settings.keep or self.capacity // 3
        return max(1, min(wanted, self.capacity - 1 - self._pinned))

    @property
    def _pinned(self) -> int:
        """Frames that are pinned: there is room for another one and for it to grow."""
        return max(0, min(self.settings.keyframes, self.capacity - 2))

    def _restart(self, kept: Sequence[_Kept], most: int, pinned: int) -> None:
        """Begin anew with the newest frames, and of each camera with its newest at least.

        Args:
            kept: Oldest first.
            most: Frames that stay, beside those that are pinned.
            pinned: So many of the oldest stay in any case.
        """
        keyframes, kept = kept[:pinned], kept[pinned:]
        newest = {each.frame.source.camera: each for each in kept}
        chosen = [each for each in kept if newest[each.frame.source.camera] is each]
        others = [each for each in kept if each not in chosen]
        room = max(0, most - len(chosen))
        chosen += others[len(others) - room :] if room else []
        self.previous = self.frames
        self._kept = [*keyframes, *(each for each in kept if each in chosen)]
        left_out = [each.frame for each in kept if each not in chosen]
        self.left_out = left_out[-1] if left_out else self.left_out
        self.counts.restarts += 1

    def _is_overdue(self, frame: StoredFrame, now_ns: int) -> bool:
        kept = self._newest(frame.source.camera)
        most_ns = self.settings.max_period_ns
        if self._has_failed:
            most_ns = min(most_ns or RETRY_NS, RETRY_NS)
        return kept is None or (most_ns > 0 and now_ns - kept.added_ns >= most_ns)

    def _newest(self, camera: str) -> _Kept | None:
        for kept in reversed(self._kept):
            if kept.frame.source.camera == camera:
                return kept
        return None

    def _place(self, kept: _Kept) -> int:
        return self.cameras.index(kept.frame.source.camera)


def _name(frame: StoredFrame) -> tuple[str, int, int]:
    return frame.source.camera, frame.stamp_ns, frame.received_ns
