"""A plain node on which `Answering` can be tried: no lifecycle, no model process, no camera."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import rclpy
from edge_vlm_ros.srv import Ask
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor

from edge_vlm_ros.core import (
    BadFrame,
    BadRequestError,
    CompressedImage,
    FrameSource,
    SteadyClock,
    StoredFrame,
)
from edge_vlm_ros.nodes.answering import Answering
from edge_vlm_ros.nodes.cameras import time_of
from edge_vlm_ros.nodes.executor_inbox import ExecutorInbox
from edge_vlm_ros.nodes.frame_waits import FrameWaits
from edge_vlm_ros.nodes.health import CameraHealth
from edge_vlm_ros.nodes.request_parameters import RequestDefaults
from edge_vlm_ros.vision import FrameBuffer
from support.canned_backend import CannedBackend

if TYPE_CHECKING:
    from edge_vlm_ros.msg import Answer as AnswerMsg
    from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg

    from edge_vlm_ros.core import Question

DEFAULTS: Final = RequestDefaults(
    max_frames=8,
    max_age_s=0.0,
    frame_wait_s=30.0,
    timeout_s=60.0,
    max_tokens=50,
    system_prompt='',
    max_repeats=32,
)
ENDLESS: Final = 'a long answer'


class Feed:
    """A camera whose frames come from the test."""

    def __init__(self) -> None:
        self.buffer = FrameBuffer(max_frames=10, max_seconds=10, max_bytes=10**6)
        self.newest: StoredFrame | None = None
        self.older: list[StoredFrame] = []
        self.dropped: list[BadFrame] = []

    def health(self) -> CameraHealth:
        """Say that it is well, or which frame was damaged."""
        reason = self.dropped[-1].reason if self.dropped else ''
        return CameraHealth(name='front', topic='/image_raw', bad_reason=reason)

    def drop_bad(self, bad: BadFrame) -> None:
        """Show the frame before."""
        self.dropped.append(bad)
        self.newest = self.older.pop() if self.older else None

    def show(self) -> None:
        """Have a frame."""
        source = FrameSource('front', '/image_raw', 'front_optical_frame')
        self.newest = StoredFrame(source, 10**9, CompressedImage('jpeg', b'x'))


class Publisher:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.chunks: list[AnswerChunkMsg] = []
        self.answers: list[AnswerMsg] = []

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Keep it."""
        self.chunks.append(message)

    def publish_answer(self, message: AnswerMsg, question: Question | None = None) -> None:
        """Keep it."""
        self.answers.append(message)


class Parameters:
    """What a request may leave open."""

    def defaults(self) -> RequestDefaults:
        """Return them."""
        return DEFAULTS

    def preset(self, name: str) -> str:
        """Return the one there is."""
        if name not in {'', 'scene'}:
            raise BadRequestError(f'no preset {name!r}; there are: scene')
        return 'Describe what you see.'


class Bench:
    """A plain node with everything that answering wants, spun by the test."""

    def __init__(self, domain: int, policy: str = 'queue') -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        with warnings.catch_warnings():
            # The message generator, imported with the first message, imports old modules.
            warnings.simplefilter('ignore', DeprecationWarning)
            self.node = rclpy.create_node('plain', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.group = ReentrantCallbackGroup()
        self.camera = Feed()
        self.publisher = Publisher()
        self.waits = FrameWaits(self.node, SteadyClock(), self.group)
        self.answering = Answering(
            self.node,
            cameras={'front': self.camera},
            publisher=self.publisher,
            parameters=Parameters(),
            waits=self.waits,
            time=time_of(self.node, SteadyClock()),
            wake=ExecutorInbox(self.node, self.group).wake,
            limit=3,
            policy=policy,
        )

    def open(self) -> CannedBackend:
        """Take requests; return what answers them."""
        self.camera.show()
        backend = self.answering.backend = CannedBackend('canned words')
        self.answering.closed = ''
        return backend

    def close(self) -> None:
        """End all."""
        if self.answering.backend is not None:
            self.answering.backend.close()
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()

    def until(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Spin until something is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, 'nothing happened'
            self.executor.spin_once(0.02)

    def call(self, service: Any, request: Any, response: Any) -> Any:
        """Call a service's coroutine as rclpy does; return its answer."""
        task = self.executor.create_task(service, request, response)
        self.until(task.done)
        reply: Any = task.result()
        return reply.answer

    def ask(self, question: str, **fields: Any) -> Any:
        """Ask and wait; return the answer."""
        request = Ask.Request(question=question, **fields)
        return self.call(self.answering.on_ask, request, Ask.Response())

    def ask_later(self, question: str, **fields: Any) -> Any:
        """Ask; return the task."""
        request = Ask.Request(question=question, **fields)
        return self.executor.create_task(self.answering.on_ask, request, Ask.Response())

    def look(self, question: str, request_id: str) -> Any:
        """Ask as a watch does; return the task."""
        request = Ask.Request(question=question, request_id=request_id)
        request.priority = Ask.Request.PRIORITY_BACKGROUND

        async def look() -> AnswerMsg:
            return await self.answering.answer(request, is_look=True)

        return self.executor.create_task(look)

    def begin(self, request_id: str) -> Any:
        """Start an answer that does not end by itself."""
        task = self.ask_later(ENDLESS, request_id=request_id)
        self.until(lambda: any(c.request_id == request_id for c in self.publisher.chunks))
        return task

    def finals(self, request_id: str) -> list[AnswerChunkMsg]:
        """Return the final chunks of a request."""
        return [c for c in self.publisher.chunks if c.request_id == request_id and c.done]
