"""From a request to a question: until when it must be answered, which frames it is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.core import (
    NS_PER_S,
    BadRequestError,
    ErrorCode,
    NoFreshFrameError,
    Question,
    TooManyFramesError,
    check_question,
)
from edge_vlm_ros.nodes.conversions import (
    RequestFacts,
    age_s,
    request_frames_from_ros,
    sampling_from_ros,
    time_from_ros,
)
from edge_vlm_ros.nodes.request_bounds import check_request
from edge_vlm_ros.vision import ChosenFrames, choose_frames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_vlm_ros.core import StoredFrame
    from edge_vlm_ros.nodes.conversions import AskRequest
    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.parameters import RequestDefaults
    from edge_vlm_ros.vision import FrameBuffer

LONG_AGO_S = 3600.0
"""A frame older than this has another clock than the node, most likely."""


class Feed(Protocol):
    """What admission wants of a camera; `CameraFeed` is one."""

    @property
    def buffer(self) -> FrameBuffer:
        """The frames kept for clips."""
        ...

    @property
    def newest(self) -> StoredFrame | None:
        """The last frame that came."""
        ...

    def health(self) -> CameraHealth:
        """Return how the camera does."""
        ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed every check which needs no frame.

    Attributes:
        request: The service's request or the action's goal.
        facts: Who asks, and when.
        question: What is asked. `Admission.choose` adds its frames.
        defaults: What the request gets where it leaves a field at 0.
    """

    request: AskRequest
    facts: RequestFacts
    question: Question
    defaults: RequestDefaults

    @property
    def frame_wait_ns(self) -> int:
        """Until when it may wait for a frame, steady nanoseconds; 0 = not at all.

        No camera sends frames of a time that is over.
        """
        as_of_ns = time_from_ros(self.request.as_of)
        wait_s = self.defaults.frame_wait_s
        if not wait_s or 0 < as_of_ns <= self.facts.asked_ros_ns:
            return 0
        stop_ns = self.question.asked_ns + round(wait_s * NS_PER_S)
        deadline_ns = self.question.deadline_ns
        return min(stop_ns, deadline_ns) if deadline_ns else stop_ns

    def with_frames(
        self,
        frames: tuple[StoredFrame, ...],
        *,
        window_truncated: bool = False,
        continues_session: bool = False,
    ) -> Admitted:
        """Return it with the frames that were chosen, and how they were."""
        return replace(
            self,
            facts=replace(self.facts, window_truncated=window_truncated),
            question=replace(self.question, frames=frames, continues_session=continues_session),
        )


def admit(
    request: AskRequest, facts: RequestFacts, defaults: RequestDefaults, asked_ns: int
) -> Admitted:
    """Check all of a request that needs no frame.

    Args:
        request: The service's request or the action's goal.
        facts: Who asks, and when.
        defaults: For the fields it leaves at 0.
        asked_ns: Steady time when it came, nanoseconds.

    Raises:
        BadRequestError: The question is empty, a field is above its limit (`core.request_limits`),
            or a value is out of its range.
    """
    check_request(request)
    timeout_s = _not_negative('timeout_s', request.timeout_s) or defaults.timeout_s
    question = Question(
        text=request.question,
        request_id=facts.request_id,
        session_id=facts.session_id,
        system_prompt=request.system_prompt or defaults.system_prompt,
        sampling=sampling_from_ros(request, defaults.max_tokens),
        choices=tuple(request.choices),
        asked_ns=asked_ns,
        deadline_ns=asked_ns + round(timeout_s * NS_PER_S) if timeout_s else 0,
    )
    check_question(question)
    return Admitted(request, facts, question, defaults)


class Admission:
    """Chooses the frames of requests; looks at frames, never into them.

    Args:
        feeds: Cameras by name; the first is the default.
    """

    def __init__(self, feeds: Mapping[str, Feed]) -> None:
        self._feeds = feeds

    def choose(
        self,
        admitted: Admitted,
        *,
        now_ns: int,
        max_images: int = 0,
        has_shown_frames: bool = False,
    ) -> Admitted:
        """Choose the frames a request is about.

        Images in the request come before cameras. A later turn of a conversation that names no
        camera and no time is about the frames already shown, so none are chosen.

        Args:
            admitted: The request.
            now_ns: ROS time that "now" means, nanoseconds: when it was asked, or later where it
                has waited for a frame.
            max_images: Most frames the model takes; 0 = not known, or no limit.
            has_shown_frames: Its session has had a turn.

        Returns:
            The request, with the frames.

        Raises:
            BadRequestError: A value makes no sense, or no camera has that name (UNKNOWN_CAMERA).
            TooManyFramesError: More frames than the model takes.
            NoFreshFrameError: A camera has no frame (NO_FRAME), or an old one (STALE_FRAME).
        """
        request = admitted.request
        frames = request_frames_from_ros(request)
        is_truncated = False
        is_continued = not frames and has_shown_frames and _is_about_the_same(request)
        if not frames and not is_continued:
            frames, is_truncated = self._from_cameras(
                request, admitted.defaults, now_ns, max_images
            )
        if max_images and len(frames) > max_images:
            raise TooManyFramesError(
                f'the request is about {len(frames)} frames, the model takes {max_images}'
            )
        return admitted.with_frames(
            frames, window_truncated=is_truncated, continues_session=is_continued
        )

    def _from_cameras(
        self, request: AskRequest, defaults: RequestDefaults, now_ns: int, max_images: int
    ) -> tuple[tuple[StoredFrame, ...], bool]:
        names = self._camera_names(request)
        most = _frames_each(request.max_frames, defaults.max_frames, max_images, len(names))
        as_of_ns = time_from_ros(request.as_of)
        max_age_s = _not_negative('max_age_s', request.max_age_s) or defaults.max_age_s
        frames: list[StoredFrame] = []
        is_truncated = False
        for name in names:
            chosen = _choose(
                self._feeds[name],
                last_seconds=_not_negative('last_seconds', request.last_seconds),
                max_frames=most,
                as_of_ns=as_of_ns,
                now_ns=now_ns,
            )
            if not chosen.frames:
                problem = self._feeds[name].health().problem
                raise NoFreshFrameError(f'camera {name}: {problem or "no image has come yet"}')
            if max_age_s and as_of_ns:
                _check_distance(name, chosen.frames[-1], as_of_ns, max_age_s)
            elif max_age_s:
                self._check_age(name, chosen.frames[-1], now_ns, max_age_s)
            frames += chosen.frames
            is_truncated |= chosen.window_truncated
        return tuple(frames), is_truncated

    def _camera_names(self, request: AskRequest) -> list[str]:
        """Name the cameras that a request means, each once."""
        names = list(dict.fromkeys(request.cameras)) or list(self._feeds)[:1]
        unknown = [name for name in names if name not in self._feeds]
        if unknown:
            known = ', '.join(self._feeds) or 'none'
            raise BadRequestError(
                f'no camera {unknown[0]!r}; there are: {known}', ErrorCode.UNKNOWN_CAMERA
            )
        return names

    def _check_age(self, name: str, frame: StoredFrame, now_ns: int, max_age_s: float) -> None:
        age = age_s(frame.stamp_ns, now_ns)
        if age <= max_age_s:
            return
        if age > LONG_AGO_S:
            cause = 'camera and node go by different clocks (is use_sim_time as it should be?)'
        else:
            cause = self._feeds[name].health().problem or 'no newer one was there'
        raise NoFreshFrameError(
            f'camera {name}: the newest frame is {age:.1f} s old, the limit is {max_age_s:.1f} s; '
            f'{cause}',
            ErrorCode.STALE_FRAME,
        )


def _check_distance(name: str, frame: StoredFrame, as_of_ns: int, max_age_s: float) -> None:
    distance_s = abs(frame.stamp_ns - as_of_ns) / NS_PER_S
    if distance_s > max_age_s:
        raise NoFreshFrameError(
            f'camera {name}: the frame nearest to as_of is {distance_s:.1f} s away from it, the '
            f'limit is {max_age_s:.1f} s',
            ErrorCode.STALE_FRAME,
        )


def _choose(
    feed: Feed, *, last_seconds: float, max_frames: int, as_of_ns: int, now_ns: int
) -> ChosenFrames:
    newest = feed.newest
    if newest is None:
        return ChosenFrames()
    is_now = not as_of_ns or as_of_ns >= newest.stamp_ns
    if is_now and not last_seconds:
        return ChosenFrames((newest,))
    chosen = choose_frames(
        feed.buffer,
        last_seconds=last_seconds,
        max_frames=max_frames,
        as_of_ns=as_of_ns,
        now_ns=now_ns,
    )
    frames = chosen.frames
    if is_now and (not frames or frames[-1].stamp_ns < newest.stamp_ns):
        # With `buffer.fps` the newest frame is often not among those kept for clips.
        frames = (*frames[: max(0, max_frames - 1)], newest)
    return ChosenFrames(frames, chosen.window_truncated)


def _is_about_the_same(request: AskRequest) -> bool:
    has_time = request.last_seconds or request.max_frames or time_from_ros(request.as_of)
    return not request.cameras and not has_time


def _frames_each(asked: int, default: int, max_images: int, cameras: int) -> int:
    """Return how many frames each camera may give; what is asked for outright is not cut."""
    if asked:
        return max(1, asked // cameras)
    most = min(default, max_images) if max_images else default
    return max(1, most // cameras)


def _not_negative(name: str, value: float) -> float:
    if not 0.0 <= value < float('inf'):
        raise BadRequestError(f'{name} is 0 or more, not {value}')
    return value
