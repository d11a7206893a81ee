"""Messages to our words and back: pure functions.

`FinishReason`, `ErrorCode`, `Readiness` have the numbers of `msg/Answer.msg`: none needs a table.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage as CompressedImageMsg
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from edge_vlm_ros.core import (
    NS_PER_S,
    YES_NO,
    Answer,
    BadRequestError,
    CompressedImage,
    Detection,
    FrameRef,
    FrameSource,
    Priority,
    RawImage,
    SamplingOptions,
    StoredFrame,
    Timings,
)
from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
from edge_vlm_ros.msg import AnswerStats as AnswerStatsMsg
from edge_vlm_ros.msg import Detection as DetectionMsg
from edge_vlm_ros.msg import FrameRef as FrameRefMsg
from edge_vlm_ros.nodes.node_time import Moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.action import Ask as AskAction
    from edge_vlm_ros.core import AnswerChunk
    from edge_vlm_ros.srv import Ask as AskService

ImageMessage: TypeAlias = 'ImageMsg | CompressedImageMsg'
AskRequest: TypeAlias = 'AskService.Request | AskAction.Goal'
"""The service's request and the action's goal have the same fields."""


_PRIORITIES = {-1: Priority.BACKGROUND, 0: Priority.NORMAL, 1: Priority.URGENT}
"""By the constants of `srv/Ask.srv`: there, what is left at 0 is the ordinary."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the node notes of a request beside its question: who asks, and when.

    Attributes:
        request_id: The caller's, or made up; never empty.
        session_id: '' = none.
        asked: When the request came; ages are counted from it.
        window_truncated: The buffers held less than the seconds asked for.
        frame_wait_s: How long it waited for a frame, seconds of steady time.
        note: How its frames were chosen, where the caller should know; for people.
        scene_checked_age_s: Age of the live frame that the frames made ready were compared with;
            -1 = there was no comparison.
        is_look: A watch asks. Then no topic and no counter of requests hears of it, it takes no
            room in the queue, and it is no sign of what will be asked next.
    """

    request_id: str
    session_id: str = ''
    asked: Moment = field(default_factory=Moment)
    window_truncated: bool = False
    frame_wait_s: float = 0.0
    note: str = ''
    scene_checked_age_s: float = -1.0
    is_look: bool = False


def time_from_ros(stamp: Time) -> int:
    """Return nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def time_to_ros(stamp_ns: int) -> Time:
    """Return the message for a time in nanoseconds."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def image_from_ros(
    message: ImageMessage, range16: tuple[int, int] = (0, 0)
) -> RawImage | CompressedImage:
    """Wrap the pixels of an image message; the bytes are shared, not copied.

    Args:
        message: As it came.
        range16: Of 16-bit images, the values that become black and white; (0, 0) = not said.
    """
    if isinstance(message, CompressedImageMsg):
        return CompressedImage(message.format, message.data, range16)
    return RawImage(
        encoding=message.encoding,
        width=message.width,
        height=message.height,
        step=message.step,
        data=message.data,
        is_bigendian=bool(message.is_bigendian),
        range16=range16,
    )


def request_frames_from_ros(request: AskRequest) -> tuple[StoredFrame, ...]:
    """Return the images that a request brought along, raw ones first; they have no camera."""
    messages: list[ImageMessage] = [*request.images, *request.compressed_images]
    return tuple(
        StoredFrame(
            source=FrameSource('', frame_id=message.header.frame_id),
            stamp_ns=time_from_ros(message.header.stamp),
            image=image_from_ros(message),
        )
        for message in messages
    )


def sampling_from_ros(
    request: AskRequest, default_max_tokens: int, max_repeats: int
) -> SamplingOptions:
    """Return how tokens are to be chosen; fields at 0 mean what `srv/Ask.srv` says.

    Raises:
        BadRequestError: A value is out of its range.
    """
    seed = request.seed
    if seed == 0 and request.temperature > 0:
        seed = secrets.randbits(32)
    return SamplingOptions(
        max_tokens=request.max_tokens or default_max_tokens,
        temperature=request.temperature,
        top_p=request.top_p or 1.0,
        top_k=request.top_k,
        seed=seed,
        repetition_penalty=request.repetition_penalty or 1.0,
        max_repeats=max_repeats,
    )


def choices_from_ros(request: AskRequest) -> tuple[str, ...]:
    """Return the answers to choose from; none = free text.

    Raises:
        BadRequestError: `yes_no` has choices of its own.
    """
    if request.yes_no and request.choices:
        raise BadRequestError(
            f'yes_no stands for the choices yes and no: choices is empty then, not '
            f'{len(request.choices)} texts'
        )
    return YES_NO if request.yes_no else tuple(request.choices)


def message_to_ros(answer: Answer, facts: RequestFacts) -> str:
    """Return what happened, for people; how frames were chosen is said of a good answer only."""
    notes = [facts.note, answer.message] if answer.success else [answer.message]
    return '; '.join(filter(None, notes))


def priority_from_ros(priority: int) -> Priority:
    """Return a request's priority.

    Raises:
        BadRequestError: It is none of the constants of `srv/Ask.srv`.
    """
    if priority not in _PRIORITIES:
        listed = ', '.join(map(str, _PRIORITIES))
        raise BadRequestError(f'priority is one of {listed}, not {priority}')
    return _PRIORITIES[priority]


def header_to_ros(frames: Sequence[StoredFrame | FrameRef]) -> Header:
    """Return stamp and frame_id of the newest of some frames; zero and empty for none."""
    if not frames:
        return Header()
    newest = max(frames, key=_taken_ns)
    return Header(stamp=time_to_ros(newest.stamp_ns), frame_id=newest.source.frame_id)


def chunk_to_ros(
    chunk: AnswerChunk, facts: RequestFacts, frames: Sequence[StoredFrame] = ()
) -> AnswerChunkMsg:
    """Return the message for one chunk.

    Args:
        chunk: The chunk.
        facts: Of its request.
        frames: Those chosen for the question; they stamp a chunk that names none itself.
    """
    message = AnswerChunkMsg(
        header=header_to_ros(frames),
        request_id=chunk.request_id,
        sequence=chunk.sequence,
        delta=chunk.delta,
    )
    if chunk.answer is not None:
        answer = chunk.answer
        message.header = header_to_ros(answer.frames or frames)
        message.done = True
        message.finish_reason = int(answer.finish_reason)
        message.error_code = int(answer.error_code)
        message.message = message_to_ros(answer, facts)
        message.stats = stats_to_ros(answer, facts)
    return message


def answer_to_ros(
    answer: Answer, facts: RequestFacts, frames: Sequence[StoredFrame] = ()
) -> AnswerMsg:
    """Return the message for a whole answer; arguments as for `chunk_to_ros`."""
    return AnswerMsg(
        header=header_to_ros(answer.frames or frames),
        request_id=answer.request_id,
        session_id=answer.session_id,
        text=answer.text,
        finish_reason=int(answer.finish_reason),
        error_code=int(answer.error_code),
        message=message_to_ros(answer, facts),
        choice=answer.choice,
        choice_valid=bool(answer.choice),
        choice_probability=_or_nan(answer.choice_probability),
        frames=[frame_ref_to_ros(frame, facts) for frame in answer.frames],
        detections=[detection_to_ros(found) for found in answer.detections.found],
        detections_dropped=answer.detections.dropped,
        stats=stats_to_ros(answer, facts),
        model=answer.model,
        chip=answer.chip,
        ahead=int(answer.readiness),
        scene_checked_age_s=facts.scene_checked_age_s,
        approximate=False,  # No way that would be is taken.
    )


def _or_nan(value: float | None) -> float:
    """Return a number as messages have it: NaN where it is not known."""
    return math.nan if value is None else value


def frame_ref_to_ros(frame: FrameRef, facts: RequestFacts) -> FrameRefMsg:
    """Return the message that names one frame; its age is judged here, by both clocks."""
    return FrameRefMsg(
        camera=frame.source.camera,
        topic=frame.source.topic,
        header=header_to_ros([frame]),
        width=frame.width,
        height=frame.height,
        age_s=facts.asked.age_s(_taken_ns(frame), frame.age_s),
    )


def detection_to_ros(found: Detection) -> DetectionMsg:
    """Return the message for a place that an answer names."""
    return DetectionMsg(
        frame=found.frame,
        label=found.label,
        x=found.x,
        y=found.y,
        width=found.width,
        height=found.height,
    )


def stats_to_ros(answer: Answer, facts: RequestFacts) -> AnswerStatsMsg:
    """Return the message that says what an answer cost."""
    timings: Timings = answer.timings
    first_token_s = timings.time_to_first_token_s
    return AnswerStatsMsg(
        queue_s=timings.queue_s,
        frame_wait_s=facts.frame_wait_s,
        run_s=timings.run_s,
        decode_images_s=timings.prepare_s,
        encode_s=timings.encode_s,
        prefill_s=timings.prefill_s,
        decode_s=timings.decode_s,
        total_s=timings.total_s,
        time_to_first_token_s=first_token_s,
        tokens_per_second=timings.tokens_per_second,
        prompt_tokens=timings.prompt_tokens,
        vision_tokens=timings.vision_tokens,
        answer_tokens=timings.answer_tokens,
        cached_prompt_tokens=timings.cached_prompt_tokens,
        newest_frame_age_s=_newest_age_s(answer, facts.asked, 0.0),
        newest_frame_age_at_first_token_s=(
            _newest_age_s(answer, facts.asked, first_token_s) if first_token_s > 0 else 0.0
        ),
        window_truncated=facts.window_truncated,
    )


def _newest_age_s(answer: Answer, asked: Moment, after_s: float) -> float:
    """Return the age of the youngest frame, some time after the question; 0 for no frame."""
    later = replace(asked, ros_ns=asked.ros_ns + round(after_s * NS_PER_S))
    ages = [
        later.age_s(_taken_ns(frame), frame.age_s + after_s if frame.age_s else 0.0)
        for frame in answer.frames
    ]
    return min(ages, default=0.0)


def _taken_ns(frame: StoredFrame | FrameRef) -> int:
    """Return when a frame was taken on the node's clock, as far as is known; 0 = it is not."""
    return frame.taken_ns or frame.stamp_ns
