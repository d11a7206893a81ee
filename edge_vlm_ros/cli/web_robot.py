"""Files and a model of this machine as the page wants a robot: no ROS.

The loop's thread alone; sources play on threads of their own and the backend answers on its own,
both hand over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from edge_vlm_ros.cli.answer_fields import fields_of_answer
from edge_vlm_ros.cli.web_sources import Shown, Source
from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    EdgeVlmError,
    NoFreshFrameError,
    NotReadyError,
    Question,
    StoredFrame,
)
from edge_vlm_ros.core.presets import PRESETS
from edge_vlm_ros.serving import Backend
from edge_vlm_ros.vision import FrameBuffer, choose_frames
from edge_vlm_ros.web import (
    Camera,
    Diagnostics,
    Facts,
    News,
    Overheard,
    Part,
    Picture,
    Preset,
    Request,
    State,
)

_T = TypeVar('_T')

BEAT_S: Final = 1.0
DEFAULT_FRAMES: Final = 8
BUFFER_S: Final = 60.0
BUFFER_BYTES: Final = 128_000_000
"""Of the frames of one camera that can be asked about."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A question that has no answer yet, and who waits for it."""

    request: Request
    on_delta: Callable[[str], None]
    on_answer: Callable[[Mapping[str, Any]], None]


class FileRobot:
    """A `Robot` without ROS.

    Args:
        sources: Its cameras, by name.
        loop: The page's.
    """

    def __init__(self, sources: Mapping[str, Source], loop: asyncio.AbstractEventLoop) -> None:
        self._sources = sources
        self._loop = loop
        self._backend: Backend | None = None
        self._state = 'loading'
        self._hear: Callable[[News], None] | None = None
        self._beat: asyncio.Task[None] | None = None
        self._buffers: dict[str, FrameBuffer] = {}
        self._open: dict[str, _Open] = {}
        self._answered = 0

    # --- for whoever loads the model -------------------------------------------------------------

    def set_state(self, text: str) -> None:
        """Say how the model does; as `~/state` does."""
        self._state = text
        self._tell(State(text))

    def set_backend(self, backend: Backend) -> None:
        """Take questions from now on."""
        self._backend = backend
        self.set_state('ready')

    # --- for the page ----------------------------------------------------------------------------

    def listen(self, hear: Callable[[News], None]) -> None:
        """See `Robot`."""
        self._hear = hear
        cameras: tuple[Camera, ...] = tuple(source.camera for source in self._sources.values())
        presets = tuple(Preset(name, question) for name, question in PRESETS.items())
        hear(Facts('the model', cameras, presets))
        hear(State(self._state))
        self._beat = asyncio.ensure_future(self._report())

    def mute(self) -> None:
        """See `Robot`."""
        self._hear = None
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def open_camera(self, name: str, show: Callable[[Picture], None]) -> None:
        """See `Robot`."""
        buffer = self._buffers[name] = FrameBuffer(
            max_frames=round(BUFFER_S * 10), max_seconds=BUFFER_S, max_bytes=BUFFER_BYTES
        )

        def keep(shown: Shown) -> None:
            if self._buffers.get(name) is buffer:  # Else it was closed meanwhile.
                buffer.add(shown.frame, shown.frame.received_ns)
                show(shown.picture)

        self._sources[name].open(partial(self._hand_over, keep))

    def close_camera(self, name: str) -> None:
        """See `Robot`."""
        self._buffers.pop(name, None)
        self._sources[name].close()

    def ask(
        self,
        request: Request,
        on_delta: Callable[[str], None],
        on_answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """See `Robot`."""
        opened = self._open[request.request_id] = _Open(request, on_delta, on_answer)
        try:
            if self._backend is None:
                raise NotReadyError(f'the model is not there yet: {self._state}')
            question = self._question(request)
            take = partial(self._take, opened)
            self._backend.ask(question, on_chunk=partial(self._hand_over, take))
        except EdgeVlmError as error:
            failed = Answer.failed(request.request_id, error, session_id=request.session_id)
            self._take(opened, AnswerChunk(request.request_id, 0, '', failed))

    def cancel(self, request_id: str) -> None:
        """See `Robot`."""
        if self._backend is not None:
            # It waits for locks of the thread that answers.
            self._loop.run_in_executor(None, self._backend.cancel, request_id)

    def reset_session(self, session_id: str) -> None:
        """See `Robot`."""
        if self._backend is not None:
            self._loop.run_in_executor(None, self._backend.reset_session, session_id)

    # --- questions -------------------------------------------------------------------------------

    def _question(self, request: Request) -> Question:
        """Return a question with the frames it is about.

        Raises:
            EdgeVlmError: There are none, or it makes no sense.
        """
        names = request.cameras or tuple(self._sources)[:1]
        asked_ns = time.monotonic_ns()
        timeout_ns = round(request.timeout_s * NS_PER_S)
        return Question(
            request.question,
            request_id=request.request_id,
            frames=tuple(
                frame
                for name in names
                for frame in self._frames(name, request, asked_ns, len(names))
            ),
            session_id=request.session_id,
            choices=request.choices,
            asked_ns=asked_ns,
            deadline_ns=asked_ns + timeout_ns if timeout_ns else 0,
        )

    def _frames(
        self, name: str, request: Request, asked_ns: int, cameras: int
    ) -> tuple[StoredFrame, ...]:
        buffer = self._buffers.get(name)
        info = self._backend.info if self._backend is not None else None
        most = request.max_frames or DEFAULT_FRAMES
        if info is not None and not request.max_frames and info.usual_frames:
            most = min(most, info.usual_frames)
        found = buffer and choose_frames(
            buffer,
            last_seconds=request.last_seconds,
            max_frames=max(1, most // cameras),
            now_ns=asked_ns,
        )
        if not found or not found.frames:
            reason = self._sources[name].problem or 'it has just been opened'
            raise NoFreshFrameError(f'no frame of {name} has come: {reason}')
        return found.frames

    def _take(self, opened: _Open, chunk: AnswerChunk) -> None:
        request, answer = opened.request, chunk.answer
        if chunk.delta:
            opened.on_delta(chunk.delta)
        self._tell(
            Overheard(
                request_id=request.request_id,
                delta=chunk.delta,
                done=answer is not None,
                question=request.question,
                error_code=0 if answer is None else int(answer.error_code),
                error_code_name='NONE' if answer is None else answer.error_code.name,
                message='' if answer is None else answer.message,
                total_s=0.0 if answer is None else answer.timings.total_s,
            )
        )
        if answer is not None:
            self._open.pop(request.request_id, None)
            self._answered += 1
            opened.on_answer(fields_of_answer(answer))

    def _hand_over(self, call: Callable[[_T], None], value: _T) -> None:
        """Have something called on the loop's thread; from any other."""
        with suppress(RuntimeError):  # The loop is closed: nobody wants it.
            self._loop.call_soon_threadsafe(call, value)

    # --- what is said ----------------------------------------------------------------------------

    def _tell(self, news: News) -> None:
        if self._hear is not None:
            self._hear(news)

    async def _report(self) -> None:
        while True:
            self._tell(Diagnostics((self._engine(), self._queue(), *self._cameras())))
            await asyncio.sleep(BEAT_S)

    def _engine(self) -> Part:
        info = self._backend.info if self._backend is not None else None
        values = {} if info is None else {'model': info.model, 'chip': info.chip}
        return Part('engine', int(info is None), self._state, values)

    def _queue(self) -> Part:
        message = f'{len(self._open)} requests run or wait'
        return Part('queue', 0, message, {'answered': str(self._answered)})

    def _cameras(self) -> list[Part]:
        return [
            Part(
                f'camera {name}',
                int(bool(source.problem)),
                source.problem or ('is looked at' if name in self._buffers else 'rests'),
                {'file': source.camera.topic},
            )
            for name, source in self._sources.items()
        ]
