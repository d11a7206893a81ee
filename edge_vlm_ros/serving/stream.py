"""One answer on its way: chunk by chunk to whoever iterates, whole to whoever waits."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from edge_vlm_ros.core import AnswerChunk
from edge_vlm_ros.serving.hear_signals import HEAR_SIGNALS_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge_vlm_ros.core import Answer, Clock

_log = logging.getLogger(__name__)

CHUNK_INTERVAL_NS = 10_000_000
"""Text that comes sooner than this after a chunk waits for the next token. A small model makes a
thousand tokens a second; listeners that keep the last 5 or 10 messages (`ros2 topic echo`, an
action client) would lose most of them. Models of 100 tokens a second and fewer never wait."""


class AnswerStream:
    """The chunks of one answer, exactly one of them final.

    Any number of threads may iterate, each sees every chunk from the first. Whoever stops half-way
    leaves nothing behind: the answer is finished all the same, `cancel` ends it early.

    Args:
        request_id: The question's.
        clock: Steady time.
        cancel: Takes the question back; called with the request_id.
        on_chunk: Called with every chunk, in order, on the thread that makes it; must be quick.
        on_begun: Called once, when work for the question begins, with the steady time in
            nanoseconds, on the thread that does the work; must be quick.
    """

    def __init__(
        self,
        request_id: str,
        *,
        clock: Clock,
        cancel: Callable[[str], int],
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> None:
        self._request_id = request_id
        self._clock = clock
        self._held = ''
        self._next_ns = 0
        self._cancel = cancel
        self._on_chunk = on_chunk
        self._on_begun = on_begun
        self._begun_ns = 0
        self._first_text_ns = 0
        self._chunks: list[AnswerChunk] = []
        self._changed = threading.Condition()

    @property
    def request_id(self) -> str:
        """The question's request_id, also where the pipeline chose it."""
        return self._request_id

    @property
    def begun_ns(self) -> int:
        """Steady time when work for the question began, nanoseconds; 0 = it waits."""
        return self._begun_ns

    @property
    def first_text_ns(self) -> int:
        """Steady time of the first chunk with text, nanoseconds; 0 = none yet."""
        return self._first_text_ns

    @property
    def done(self) -> bool:
        """Whether the final chunk is there."""
        with self._changed:
            return self._is_done()

    def __iter__(self) -> Iterator[AnswerChunk]:
        """Give out every chunk as it comes; the last one has the whole answer."""
        index = 0
        while True:
            with self._changed:
                while index >= len(self._chunks):
                    self._changed.wait(HEAR_SIGNALS_S)
                chunk = self._chunks[index]
            yield chunk
            if chunk.done:
                return
            index += 1

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the whole answer; errors and cancels are answers too, with their code.

        Args:
            timeout: Seconds to wait; None = as long as it takes.

        Raises:
            TimeoutError: It did not come in time. The question goes on: `cancel` ends it.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_done, timeout):
                raise TimeoutError(f'no answer to {self._request_id} within {timeout} s')
            answer = self._chunks[-1].answer
        assert answer is not None
        return answer

    def cancel(self) -> bool:
        """Take the question back; return whether it was still running or waiting."""
        return self._cancel(self._request_id) > 0

    def begin(self, begun_ns: int) -> None:
        """Take note that work for the question begins. For the maker of the answer.

        Args:
            begun_ns: Steady time, nanoseconds.
        """
        if self._begun_ns:
            return
        self._begun_ns = begun_ns
        if self._on_begun is not None:
            self._on_begun(begun_ns)

    def push(self, delta: str) -> bool:
        """Add text; return whether the stream still took it. For the maker of the answer."""
        with self._changed:
            if self._is_done():
                return False
            self._held += delta
            now_ns = self._clock.now_ns()
            if self._held and now_ns >= self._next_ns:
                self._next_ns = now_ns + CHUNK_INTERVAL_NS
                self._add(AnswerChunk(self._request_id, len(self._chunks), self._take_held()))
        return True

    def finish(self, make_answer: Callable[[str], Answer], delta: str = '') -> bool:
        """Add the final chunk; return whether this call did. For the maker of the answer.

        Args:
            make_answer: Makes the answer from the whole text.
            delta: The last piece of text, held back until now.
        """
        with self._changed:
            if self._is_done():
                return False
            delta = self._take_held() + delta
            text = ''.join([chunk.delta for chunk in self._chunks]) + delta
            answer = make_answer(text)
            self._add(AnswerChunk(self._request_id, len(self._chunks), delta, answer))
        return True

    def relay(self, chunk: AnswerChunk) -> bool:
        """Add a chunk that a stream elsewhere has made; return whether this stream still took it.

        For a process that hears of the answer from another one; it neither pushes nor finishes
        what that one still makes, but it may finish it in its place.
        """
        with self._changed:
            if self._is_done():
                return False
            self._add(chunk)
        return True

    def _take_held(self) -> str:
        held, self._held = self._held, ''
        return held

    def _is_done(self) -> bool:
        return bool(self._chunks) and self._chunks[-1].done

    def _add(self, chunk: AnswerChunk) -> None:
        if chunk.delta and not self._first_text_ns:
            self._first_text_ns = self._clock.now_ns()
        self._chunks.append(chunk)
        self._changed.notify_all()
        if self._on_chunk is None:
            return
        try:
            self._on_chunk(chunk)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_chunk failed for %s', self._request_id)
