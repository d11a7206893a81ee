"""Which frames a question shows where a window has been kept up for it: the gate.

The newest frame of each camera is compared with the window's newest. While the scene is the same,
the window is shown as it stands; where it is not, or where the request wants newer frames than
these, the newest frame is added first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_vlm_ros.nodes.admission import frame_age_s
from edge_vlm_ros.scheduling import WatchedWindow
from edge_vlm_ros.serving.shown_frames import name_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_vlm_ros.core import FrameKey, StoredFrame
    from edge_vlm_ros.nodes.admission import Admitted
    from edge_vlm_ros.nodes.conversions import AskRequest
    from edge_vlm_ros.nodes.looks import Looks
    from edge_vlm_ros.nodes.node_time import Moment


def covers(window: WatchedWindow, request: AskRequest, now: Moment) -> bool:
    """Return whether a request is about what a window shows: all of it, and nothing else.

    A clip is, if all frames of the window lie within its seconds and the window has left out none
    that does.
    """
    if not request.last_seconds:
        return True
    if window.holds_stills or not window.frames:
        return False
    oldest_s = max(frame_age_s(frame, now) for frame in window.frames)
    left_out = window.left_out
    is_whole = left_out is None or frame_age_s(left_out, now) > request.last_seconds
    return bool(is_whole and oldest_s <= request.last_seconds)


def choose_frames(  # noqa: PLR0913 (keywords)
    admitted: Admitted,
    window: WatchedWindow,
    now: Moment,
    *,
    looks: Looks,
    is_ready: Callable[[Sequence[StoredFrame]], bool],
    has_slots: bool,
) -> Admitted:
    """Give a question the frames of a window; newer ones become part of it.

    Args:
        admitted: With the frames that it shows if nothing is ready; the newest of each camera is
            as fresh as it has to be.
        window: Of these cameras.
        now: The moment that ages are counted from.
        looks: At frames.
        is_ready: Tells whether frames are whole in the KV cache.
        has_slots: The KV cache holds more than one prompt: what a window was before stays there
            while it is made ready anew.
    """
    request, question = admitted.request, admitted.question
    newest = {frame.source.camera: frame for frame in question.frames}
    before = window.frames
    for frame in newest.values():
        look = looks.at(frame)
        if window.has_changed(frame, look) or _is_old(window, frame, request, now):
            window.add(frame, look, now.steady_ns)
    frames, old = window.frames, window.previous
    may_show_old = has_slots or are_same(before, old)
    if old and may_show_old and len(newest) == 1 and is_ready(old):
        frames = _with_newest(window, newest, looks, request, now)
    if request.max_frames and len(frames) > max(request.max_frames, len(newest)):
        return admitted
    checked_s = max(frame_age_s(frame, now) for frame in newest.values())
    return replace(
        admitted,
        facts=replace(admitted.facts, scene_checked_age_s=checked_s),
        question=replace(question, frames=frames, shown_as=window.shown_as),
    )


def _with_newest(
    window: WatchedWindow,
    newest: Mapping[str, StoredFrame],
    looks: Looks,
    request: AskRequest,
    now: Moment,
) -> tuple[StoredFrame, ...]:
    """Return what a window held before it began anew, for that is what is ready.

    Where the scene has changed since, the newest frame stands in the place of the last: all before
    it is ready still.
    """
    old, (live,) = window.previous, newest.values()
    then = WatchedWindow(window.cameras, window.settings)
    then.add(old[-1], looks.at(old[-1]), now.steady_ns)
    if then.has_changed(live, looks.at(live)) or _is_old(then, live, request, now):
        return (*old[:-1], live)
    return old


def _is_old(window: WatchedWindow, live: StoredFrame, request: AskRequest, now: Moment) -> bool:
    """Return whether the window's newest frame is older than the request itself allows."""
    newest = window.newest(live.source.camera)
    if newest is None or newest is live or not request.max_age_s:
        return False
    return bool(frame_age_s(newest, now) > request.max_age_s)


def keys_of(frames: Sequence[StoredFrame]) -> tuple[FrameKey, ...]:
    """Name frames as reports do."""
    return tuple(map(name_frame, frames))


def are_same(one: Sequence[StoredFrame], other: Sequence[StoredFrame]) -> bool:
    """Return whether these are the same frames; their bytes are not compared."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
