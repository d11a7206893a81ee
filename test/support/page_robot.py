"""A robot for the page that does what a test says: no ROS, no model, no camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import cv2
import numpy as np

from edge_vlm_ros.web import Camera, Facts, News, Picture, Preset, Request, State

FACTS: Final = Facts(
    name='/vlm',
    cameras=(Camera('front', '/front/image', 'raw'), Camera('rear', '/rear/image', 'compressed')),
    presets=(Preset('scene', 'What do you see?'),),
)


def jpeg(brightness: int = 128, width: int = 32, height: int = 18) -> bytes:
    """Return a grey picture."""
    pixels = np.full((height, width, 3), brightness, np.uint8)
    return bytes(cv2.imencode('.jpg', pixels)[1].tobytes())


def answer_to(request: Request, **changes: Any) -> dict[str, Any]:
    """Return the fields of a good answer that used no frame."""
    stats = {'total_s': 0.5, 'queue_s': 0.1, 'time_to_first_token_s': 0.2, 'prompt_tokens': 9}
    empty = {'encode_s': 0.0, 'decode_images_s': 0.0, 'prefill_s': 0.1, 'decode_s': 0.2}
    return {
        'request_id': request.request_id,
        'text': 'a red box',
        'error_code': 0,
        'error_code_name': 'NONE',
        'finish_reason_name': 'STOP',
        'message': '',
        'frames': [],
        'choice': '',
        'choice_probability': None,
        'model': 'm',
        'chip': 'cpu',
        'stats': {**stats, **empty, 'tokens_per_second': 9.0, 'cached_prompt_tokens': 3},
        **changes,
    }


def frame(camera: str, stamp_ns: int, age_s: float = 0.1) -> dict[str, Any]:
    """Return what an answer says of a frame."""
    sec, nanosec = divmod(stamp_ns, 10**9)
    return {
        'camera': camera,
        'header': {'stamp': {'sec': sec, 'nanosec': nanosec}},
        'age_s': age_s,
        'width': 32,
        'height': 18,
    }


class PageRobot:
    """Notes what the page wants of it; a test answers by hand."""

    def __init__(self) -> None:
        self.hear: Callable[[News], None] | None = None
        self.shows: dict[str, Callable[[Picture], None]] = {}
        self.asked: list[Request] = []
        self.cancelled: list[str] = []
        self.reset: list[str] = []
        self.deltas: dict[str, Callable[[str], None]] = {}
        self.answers: dict[str, Callable[[Mapping[str, Any]], None]] = {}

    def listen(self, hear: Callable[[News], None]) -> None:
        """See `Robot`."""
        self.hear = hear
        hear(FACTS)
        hear(State('ready'))

    def mute(self) -> None:
        """See `Robot`."""
        self.hear = None

    def open_camera(self, name: str, show: Callable[[Picture], None]) -> None:
        """See `Robot`."""
        self.shows[name] = show

    def close_camera(self, name: str) -> None:
        """See `Robot`."""
        del self.shows[name]

    def ask(
        self,
        request: Request,
        on_delta: Callable[[str], None],
        on_answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """See `Robot`."""
        self.asked.append(request)
        self.deltas[request.request_id] = on_delta
        self.answers[request.request_id] = on_answer

    def cancel(self, request_id: str) -> None:
        """See `Robot`."""
        self.cancelled.append(request_id)

    def reset_session(self, session_id: str) -> None:
        """See `Robot`."""
        self.reset.append(session_id)

    def answer(self, request: Request, **changes: Any) -> None:
        """Answer a question."""
        self.answers.pop(request.request_id)(answer_to(request, **changes))
