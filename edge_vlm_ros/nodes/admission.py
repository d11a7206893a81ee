"""From a request to a question: until when it must be answered, which frames it is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.core import (
    MAX_LATENCY_S,
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
    choices_from_ros,
    priority_from_ros,
    request_frames_from_ros,
    sampling_from_ros,
    time_from_ros,
)
from edge_vlm_ros.nodes.request_bounds import check_request
from edge_vlm_ros.vision import ChosenFrames, choose_frames
from edge_vlm_ros.vision.frame_sampler import LONGEST_WINDOW_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edge_vlm_ros.core import BadFrame, StoredFrame
    from edge_vlm_ros.nodes.conversions import AskRequest
    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.node_time import Moment
    from edge_vlm_ros.nodes.request_parameters import RequestDefaults
    from edge_vlm_ros.vision import FrameBuffer


LIMITS = {
    'last_seconds': LONGEST_WINDOW_S,
    'max_age_s': 1e9,
    'max_frames': 256,
    'max_latency_s': MAX_LATENCY_S,
    'max_tokens': 1_000_000,
    'timeout_s': 1e6,
    'top_k': 1_000_000,
}
"""The largest value of a request's field that makes sense; the smallest is 0. As far as there is a
parameter of that name, its range is the same."""

FRAMES_PER_IMAGE = 2
"""Most frames that any model family shows as one image (Qwen2-VL, of a video)."""


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

    def drop_bad(self, bad: BadFrame) -> None:
        """Forget a frame that turned out to be damaged when it was decoded."""
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
        if not wait_s or 0 < as_of_ns <= self.facts.asked.ros_ns:
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
        note: str = '',
    ) -> Admitted:
        """Return it with the frames that were chosen, and how they were."""
        return replace(
            self,
            facts=replace(self.facts, window_truncated=window_truncated, note=note),
            question=replace(self.question, frames=frames, continues_session=continues_session),
        )


def admit(request: AskRequest, facts: RequestFacts, defaults: RequestDefaults) -> Admitted:
    """Check all of a request that needs no frame.

    Args:
        request: The service's request or the action's goal.
        facts: Who asks, and when.
        defaults: For the fields it leaves at 0.

    Raises:
        BadRequestError: The question is empty, a field is above its limit (`core.request_limits`),
            or a value is out of its range.
    """
    check_request(request)
    _check_numbers(request)
    asked_ns = facts.asked.steady_ns
    timeout_s = request.timeout_s or defaults.timeout_s
    question = Question(
        text=request.question,
        request_id=facts.request_id,
        session_id=facts.session_id,
        system_prompt=request.system_prompt or defaults.system_prompt,
        sampling=sampling_from_ros(request, defaults.max_tokens, defaults.max_repeats),
        choices=choices_from_ros(request),
        stop=tuple(request.stop),
        asked_ns=asked_ns,
        deadline_ns=asked_ns + round(timeout_s * NS_PER_S) if timeout_s else 0,
        priority=priority_from_ros(request.priority),
        max_latency_s=request.max_latency_s,
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
        now: Moment,
        max_images: int = 0,
        usual_frames: int = 0,
        has_shown_frames: bool = False,
    ) -> Admitted:
        """Choose the frames a request is about.

        Images in the request come before cameras. A later turn of a conversation that names no
        camera and no time is about the frames already shown, so none are chosen.

        Args:
            admitted: The request.
            now: What "now" means: when it was asked, or later where it has waited for a frame.
            max_images: Most frames the model takes; 0 = not known, or no limit.
            usual_frames: Most frames of a request that does not say how many; 0 = no limit.
            has_shown_frames: Its session has had a turn.

        Returns:
            The request, with the frames.

        Raises:
            BadRequestError: A value makes no sense, or no camera has that name (UNKNOWN_CAMERA).
            TooManyFramesError: More images, or more cameras, than the model takes images.
            NoFreshFrameError: A camera has no frame (NO_FRAME), or an old one (STALE_FRAME).
        """
        request = admitted.request
        frames = request_frames_from_ros(request)
        is_truncated = False
        is_continued = not frames and has_shown_frames and _is_about_the_same(request)
        if not frames and not is_continued:
            usual = admitted.defaults.max_frames
            usual = min(usual, usual_frames or usual)
            frames, is_truncated = self._from_cameras(
                request, admitted.defaults.max_age_s, now, max_images, usual
            )
        _check_count(frames, max_images)
        return admitted.with_frames(
            frames,
            window_truncated=is_truncated,
            continues_session=is_continued,
            note=_note(request.max_frames, max_images, frames),
        )

    def drop_bad(self, bad_frames: Iterable[BadFrame]) -> None:
        """Have the cameras forget frames that turned out to be damaged when they were decoded."""
        for bad in bad_frames:
            feed = self._feeds.get(bad.source.camera)
            if feed is not None:
                feed.drop_bad(bad)

    def _from_cameras(
        self,
        request: AskRequest,
        usual_age_s: float,
        now: Moment,
        max_images: int,
        usual_frames: int,
    ) -> tuple[tuple[StoredFrame, ...], bool]:
        names = self._camera_names(request)
        most = _frames_each(request.max_frames, usual_frames, max_images, len(names))
        as_of_ns = time_from_ros(request.as_of)
        max_age_s = request.max_age_s or usual_age_s
        frames: list[StoredFrame] = []
        is_truncated = False
        for name in names:
            chosen = _choose(
                self._feeds[name],
                last_seconds=request.last_seconds,
                max_frames=most,
                as_of_ns=as_of_ns,
                now_ns=now.arrival_ns,
            )
            if not chosen.frames:
                raise _no_frame(self._feeds[name].health())
            if max_age_s and as_of_ns:
                self._check_distance(name, chosen.frames[-1], as_of_ns, max_age_s)
            elif max_age_s:
                self._check_age(name, chosen.frames[-1], now, max_age_s)
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

    def _check_age(self, name: str, frame: StoredFrame, now: Moment, max_age_s: float) -> None:
        age_s = frame_age_s(frame, now)
        if age_s <= max_age_s:
            return
        health = self._feeds[name].health()
        if health.bad_reason and not health.is_quiet:  # What comes cannot be decoded.
            raise _no_frame(health)
        raise NoFreshFrameError(
            f'camera {name}: the newest frame is {age_s:.1f} s old, the limit is '
            f'{max_age_s:.1f} s; {health.problem or "no newer one was there"}',
            ErrorCode.STALE_FRAME,
        )

    def _check_distance(
        self, name: str, frame: StoredFrame, as_of_ns: int, max_age_s: float
    ) -> None:
        distance_s = abs(frame.stamp_ns - as_of_ns) / NS_PER_S
        if distance_s <= max_age_s:
            return
        clocks = self._feeds[name].health().clock_problem
        raise NoFreshFrameError(
            f'camera {name}: the frame nearest to as_of is {distance_s:.1f} s away from it, the '
            f'limit is {max_age_s:.1f} s{"; " if clocks else ""}{clocks}',
            ErrorCode.STALE_FRAME,
        )


def frame_age_s(frame: StoredFrame, now: Moment) -> float:
    """Return how old a camera's frame is, seconds, by both clocks."""
    since_s = (now.steady_ns - frame.received_ns) / NS_PER_S if frame.received_ns else 0.0
    return now.age_s(frame.taken_ns or frame.stamp_ns, since_s)


def _no_frame(health: CameraHealth) -> NoFreshFrameError:
    """Say why a camera has no frame that can be shown."""
    if health.bad_reason:
        return NoFreshFrameError(
            f'camera {health.name!r}: {health.bad_reason}', ErrorCode.BAD_IMAGE
        )
    return NoFreshFrameError(f'camera {health.name}: {health.problem or "no image has come yet"}')


def _choose(
    feed: Feed, *, last_seconds: float, max_frames: int, as_of_ns: int, now_ns: int
) -> ChosenFrames:
    newest = feed.newest
    if newest is None:
        return ChosenFrames()
    if not as_of_ns and not last_seconds:
        return ChosenFrames((newest,))
    chosen = choose_frames(
        feed.buffer,
        last_seconds=last_seconds,
        max_frames=max_frames,
        as_of_ns=as_of_ns,
        now_ns=now_ns,
    )
    frames = chosen.frames
    if not frames or (frames[-1] is not newest and _ends_later(frames[-1], newest, as_of_ns)):
        # With `buffer.fps` the newest frame is often not among those kept for clips.
        kept = max_frames - 1 if last_seconds else 0
        frames = (*frames[:kept], newest)
    return ChosenFrames(frames, chosen.window_truncated)


def _ends_later(last: StoredFrame, newest: StoredFrame, as_of_ns: int) -> bool:
    """Return whether what is asked about ends with the newest frame rather than with another."""
    return not as_of_ns or last.stamp_ns < newest.stamp_ns <= as_of_ns


def _is_about_the_same(request: AskRequest) -> bool:
    has_time = request.last_seconds or request.max_frames or time_from_ros(request.as_of)
    return not request.cameras and not has_time


def _frames_each(asked: int, default: int, max_images: int, cameras: int) -> int:
    """Return how many frames each camera may give at most."""
    most = asked or default
    if max_images:
        # The model process counts what was asked for: there a family may make one of several.
        most = min(most, FRAMES_PER_IMAGE * max_images if asked else max_images)
    return max(1, most // cameras)


def _check_count(frames: Sequence[StoredFrame], max_images: int) -> None:
    """Refuse what cannot be thinned out: each image, and one frame of each camera."""
    cameras = {frame.source.camera for frame in frames} - {''}
    images = sum(not frame.source.camera for frame in frames)
    number = len(cameras) + images
    if max_images and number > max_images:
        what = 'cameras' if cameras else 'frames'
        raise TooManyFramesError(
            f'the request is about {number} {what}, the model takes {max_images} images'
        )


def _note(asked: int, max_images: int, frames: Sequence[StoredFrame]) -> str:
    most = FRAMES_PER_IMAGE * max_images
    if not max_images or asked <= most or len(frames) < most:
        return ''
    return f'max_frames is {asked}, the model takes {max_images} images'


def _check_numbers(request: AskRequest) -> None:
    """Refuse values that make no sense, whether or not they would be used.

    Raises:
        BadRequestError: One is out of its range; it names the range.
    """
    for name, most in LIMITS.items():
        value = getattr(request, name)
        if not 0 <= value <= most:  # Not so for NaN either.
            raise BadRequestError(f'{name} is from 0 to {most:.10g}, not {value:.10g}')
    as_of = request.as_of
    if as_of.sec < 0 or as_of.nanosec >= NS_PER_S:
        raise BadRequestError(
            f'as_of is a time with sec from 0 and nanosec below {NS_PER_S}, not {as_of.sec} and '
            f'{as_of.nanosec}'
        )
