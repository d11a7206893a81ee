"""One question to one server: sent, listened to, ended in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.remote.errors import FaultError, unreachable
from edge_vlm_ros.remote.events import EventReader, ServerEvent, Usage

if TYPE_CHECKING:
    from edge_vlm_ros.remote.addresses import ServerAddress
    from edge_vlm_ros.remote.client import Body, ServerClient

MAX_ANSWER_BYTES: Final = 64 << 20
"""Most that is read of one answer's stream."""

AFTERWORD_S: Final = 1.0
"""How long a server may take from the end of its answer to the count of its tokens."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take.

    Attributes:
        first_token_s: To its first word, seconds; signs of life do not count.
        between_s: From one sign of life to the next after it, seconds.
    """

    first_token_s: float
    between_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a server ended its answer.

    Attributes:
        finish_reason: Its word; '' = the listener had heard enough.
        usage: None = it did not count.
        has_thought: It thought aloud.
    """

    finish_reason: str
    usage: Usage | None
    has_thought: bool


async def ask_server(  # noqa: PLR0913 (keywords)
    client: ServerClient,
    server: ServerAddress,
    *,
    body: bytes,
    headers: Mapping[str, str],
    patience: Patience,
    take: Callable[[ServerEvent], bool],
) -> Outcome:
    """Ask one server and listen to the end of its answer; a cancel closes the connection.

    Args:
        client: Started.
        server: Which.
        body: The request.
        headers: Further ones.
        patience: How long it may take.
        take: Given each event with text; returns whether to go on.

    Raises:
        FaultError: It did not answer, or broke off.
    """
    listening = _Listening(patience, take)
    try:
        async with (
            _Limit(patience.first_token_s) as limit,
            client.stream(server, body, headers) as stream,
        ):
            return await listening.listen(stream, limit)
    except _OverError:
        return listening.late_end()
    except FaultError as error:
        raise FaultError(client.without_key(error.fault)) from None


class _OverError(Exception):
    """The time is over."""


class _Limit:
    """Ends the block that it stands for when its time is over; the time may be set again.

    Not `asyncio.wait_for`: before Python 3.12 that may lose a cancel.

    Args:
        seconds: From the beginning of the block.

    Raises:
        _OverError: At the end of the block, where the time ended it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False

    async def __aenter__(self) -> _Limit:  # noqa: PYI034 (Self comes with Python 3.11)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._seconds, self._end)
        return self

    def set(self, seconds: float) -> None:
        """Let the block go on for so long from now on."""
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not self._is_over:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise _OverError from None


class _Listening:
    """What was heard of one answer so far."""

    def __init__(self, patience: Patience, take: Callable[[ServerEvent], bool]) -> None:
        self._patience = patience
        self._take = take
        self._has_word = False
        self._reason = ''
        self._usage: Usage | None = None
        self._has_thought = False
        self._nbytes = 0

    async def listen(self, stream: Body, limit: _Limit) -> Outcome:
        """Read to the end of the answer.

        Raises:
            FaultError: It broke off.
        """
        reader = EventReader()
        try:
            while data := await stream.read():
                if self._has_word and not self._reason:
                    limit.set(self._patience.between_s)
                self._count(data)
                if self._hear(reader.feed(data), limit):
                    return self._outcome()
            self._hear(reader.close(), limit)
        except FaultError:
            if self._reason:
                return self._outcome()
            raise
        if not self._reason:
            raise FaultError(unreachable('the stream ended in the midst of the answer'))
        return self._outcome()

    def late_end(self) -> Outcome:
        """The time is over: return what there is, if the answer had ended before.

        Raises:
            FaultError: It had not.
        """
        if self._reason:
            return self._outcome()
        bounds = self._patience
        if self._has_word:
            raise FaultError(unreachable(f'fell silent for {bounds.between_s:g} s'))
        raise FaultError(unreachable(f'said no word within {bounds.first_token_s:g} s'))

    def _hear(self, events: list[ServerEvent], limit: _Limit) -> bool:
        """Take events; return whether there is nothing more to wait for."""
        for event in events:
            if event.fault is not None:
                if self._reason:
                    return True  # What follows the end of an answer is no part of it.
                raise FaultError(event.fault)
            self._usage = event.usage or self._usage
            self._has_thought |= event.is_thinking
            if event.text and not self._reason:
                self._begin(limit)
                if not self._take(event):
                    return True
            if event.finish_reason:
                self._reason = event.finish_reason
                limit.set(AFTERWORD_S)
            if event.is_last:
                return bool(self._reason) or self._broke()
        return False

    def _begin(self, limit: _Limit) -> None:
        if not self._has_word:
            self._has_word = True
            limit.set(self._patience.between_s)

    def _broke(self) -> bool:
        raise FaultError(unreachable('the stream ended without saying how the answer did'))

    def _count(self, data: bytes) -> None:
        self._nbytes += len(data)
        if self._nbytes > MAX_ANSWER_BYTES:
            raise FaultError(unreachable(f'streams without end: over {MAX_ANSWER_BYTES} bytes'))

    def _outcome(self) -> Outcome:
        return Outcome(self._reason, self._usage, self._has_thought)
