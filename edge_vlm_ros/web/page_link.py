"""One page that is open: what it says is carried out, what it is to hear waits in a queue."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from edge_vlm_ros.core import BadRequestError, BusyError, EdgeVlmError, ErrorCode
from edge_vlm_ros.web import bounds, messages
from edge_vlm_ros.web.hub import Hub
from edge_vlm_ros.web.robot import Request

_log = logging.getLogger(__name__)

_DROPPABLE: Final = frozenset({'delta', 'overheard', 'feeds', 'diagnostics'})
"""What may be missed: an answer brings all of its text, and the next second new numbers."""


class Outbox:
    """Messages to one browser, in order. A slow one misses what it can do without."""

    def __init__(self, most: int = bounds.MAX_WAITING) -> None:
        self._most = most
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._filled = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Mapping[str, Any]) -> None:
        """Have a message sent; where too many wait, one that can be missed goes."""
        self._waiting.append(message)
        if len(self._waiting) > self._most:
            self.dropped += 1
            droppable = (m for m in self._waiting if m['kind'] in _DROPPABLE)
            self._waiting.remove(next(droppable, self._waiting[0]))
        self._filled.set()

    async def get(self) -> str:
        """Wait for the next message; return it as JSON."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return json.dumps(self._waiting.popleft())


class PageLink:
    """What one page has under way. The loop's thread alone.

    Args:
        hub: What it shares with the others.
    """

    def __init__(self, hub: Hub) -> None:
        self.outbox: Final = Outbox()
        self._hub = hub
        self._looks: set[str] = set()
        self._open: dict[str, Request] = {}
        self.outbox.put(
            {
                'kind': 'hello',
                'read_only': hub.read_only,
                'question_chars': bounds.MAX_QUESTION_CHARS,
                'most_open': bounds.MAX_OPEN,
            }
        )
        self._prefix = hub.enter(self.outbox.put)

    def take(self, text: str) -> None:
        """Carry out what the page says; what cannot be is answered with an error."""
        try:
            message = messages.read(text, cameras=self._hub.camera_names, prefix=self._prefix)
            self._carry_out(message)
        except EdgeVlmError as error:
            self._complain(error, _id_in(text))

    def close(self) -> None:
        """End what is under way: the page is gone."""
        self._hub.leave(self._prefix)
        for name in self._looks:
            self._hub.feeds.leave(name)
        self._looks.clear()
        for request in list(self._open.values()):
            self._hub.robot.cancel(request.request_id)

    def _carry_out(self, message: messages.PageMessage) -> None:
        if isinstance(message, messages.Look):
            self._look(set(message.cameras))
            return
        if self._hub.read_only:
            raise BadRequestError(
                'this page only shows: the parameter web.read_only is true',
                ErrorCode.UNSUPPORTED_OPTION,
            )
        if isinstance(message, messages.Ask):
            self._ask(message.id, message.request)
        elif isinstance(message, messages.Cancel):
            if message.id in self._open:
                self._hub.robot.cancel(self._open[message.id].request_id)
        else:
            self._hub.robot.reset_session(message.session)

    def _look(self, wanted: set[str]) -> None:
        for name in wanted - self._looks:
            self._hub.feeds.look(name)
        for name in self._looks - wanted:
            self._hub.feeds.leave(name)
        self._looks = wanted

    def _ask(self, given: str, request: Request) -> None:
        if given in self._open:
            raise BadRequestError(f'question {given!r} runs already', ErrorCode.DUPLICATE_REQUEST)
        if len(self._open) >= bounds.MAX_OPEN:
            raise BusyError(f'{len(self._open)} questions of this page have no answer yet')
        self._open[given] = request

        def on_delta(delta: str) -> None:
            self.outbox.put({'kind': 'delta', 'id': given, 'delta': delta})

        def on_answer(answer: Mapping[str, Any]) -> None:
            if self._open.pop(given, None) is None:
                _log.warning('a second answer to %s', request.request_id)
                return
            number, case = self._hub.cases.add(request, answer, self._find)
            self.outbox.put(
                {
                    'kind': 'answer',
                    'id': given,
                    'number': number,
                    'answer': answer,
                    'pictures': case.pictures(),
                }
            )

        self.outbox.put({'kind': 'accepted', 'id': given, 'request_id': request.request_id})
        self._hub.robot.ask(request, on_delta, on_answer)

    def _find(self, camera: str, stamp_ns: int) -> Any:
        feed = self._hub.feeds.get(camera)
        return None if feed is None else feed.store.find(stamp_ns)

    def _complain(self, error: EdgeVlmError, given: str) -> None:
        self.outbox.put(
            {
                'kind': 'error',
                'id': given,
                'error_code': int(error.code),
                'error_code_name': error.code.name,
                'message': error.message,
            }
        )


def _id_in(text: str) -> str:
    """Return which question a message is about, if it says so; it was refused."""
    try:
        given = json.loads(text).get('id', '')
    except (ValueError, RecursionError, AttributeError):
        return ''
    return given if isinstance(given, str) and len(given) <= bounds.MAX_NAME_CHARS else ''
