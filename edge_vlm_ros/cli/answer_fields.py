"""An answer as plain data, with the fields of edge_vlm_ros/msg/Answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_vlm_ros.core import NS_PER_S, Answer, FrameRef


def fields_of_answer(answer: Answer) -> dict[str, Any]:
    """Return the fields of msg/Answer, named and nested as there, and two names for people.

    `finish_reason` and `error_code` are the numbers of the message; `finish_reason_name` and
    `error_code_name` are the names of its constants without FINISH_ and ERROR_.
    What is NaN in the message is None here: JSON has no NaN, but null.
    """
    newest = answer.frames[-1] if answer.frames else None
    return {
        'header': _header(newest),
        'request_id': answer.request_id,
        'session_id': answer.session_id,
        'text': answer.text,
        'finish_reason': int(answer.finish_reason),
        'error_code': int(answer.error_code),
        'message': answer.message,
        'choice': answer.choice,
        'choice_valid': bool(answer.choice),
        'choice_probability': answer.choice_probability,
        'frames': [_frame(frame) for frame in answer.frames],
        'detections': [asdict(found) for found in answer.detections.found],
        'detections_dropped': answer.detections.dropped,
        'stats': _stats(answer),
        'model': answer.model,
        'chip': answer.chip,
        'ahead': int(answer.readiness),
        'scene_checked_age_s': -1.0,  # Files do not change: there is nothing to compare.
        'approximate': False,
        'finish_reason_name': answer.finish_reason.name,
        'error_code_name': answer.error_code.name,
    }


def _header(frame: FrameRef | None) -> dict[str, Any]:
    stamp_ns = 0 if frame is None else frame.stamp_ns
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    frame_id = '' if frame is None else frame.source.frame_id
    return {'stamp': {'sec': sec, 'nanosec': nanosec}, 'frame_id': frame_id}


def _frame(frame: FrameRef) -> dict[str, Any]:
    return {
        'camera': frame.source.camera,
        'topic': frame.source.topic,
        'header': _header(frame),
        'width': frame.width,
        'height': frame.height,
        'age_s': frame.age_s,
    }


def _stats(answer: Answer) -> dict[str, Any]:
    timings = answer.timings
    age_s = answer.frames[-1].age_s if answer.frames else 0.0
    first_token_s = timings.time_to_first_token_s
    return {
        'queue_s': timings.queue_s,
        # Files are there at once and whole: nothing is waited for, no window is cut.
        'frame_wait_s': 0.0,
        'run_s': timings.run_s,
        'decode_images_s': timings.prepare_s,
        'encode_s': timings.encode_s,
        'prefill_s': timings.prefill_s,
        'decode_s': timings.decode_s,
        'total_s': timings.total_s,
        'time_to_first_token_s': first_token_s,
        'tokens_per_second': timings.tokens_per_second,
        'prompt_tokens': timings.prompt_tokens,
        'vision_tokens': timings.vision_tokens,
        'answer_tokens': timings.answer_tokens,
        'cached_prompt_tokens': timings.cached_prompt_tokens,
        'newest_frame_age_s': age_s,
        'newest_frame_age_at_first_token_s': age_s + first_token_s if first_token_s else 0.0,
        'window_truncated': False,
    }
