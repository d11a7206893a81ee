"""Sessions: conversations by name, bounded by count, age and bytes, whatever they hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from edge_vlm_ros.core import NS_PER_S, BadRequestError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.core import Clock


class Talk(Protocol):
    """A conversation, as far as its keeper looks into it."""

    @property
    def nbytes(self) -> int:
        """Bytes of the frames kept."""
        ...

    @property
    def has_turns(self) -> bool:
        """Whether anything was said yet."""
        ...


T = TypeVar('T', bound=Talk)


@dataclass(slots=True)
class _Session(Generic[T]):
    conversation: T
    used_ns: int


class Sessions(Generic[T]):
    """The conversations that go on, bounded by count, age and bytes; safe from any thread.

    Args:
        clock: Steady time.
        begin: Makes a conversation in which nothing was said yet.
        max_sessions: The one not used for longest goes first.
        max_bytes: Of the frames they keep; likewise.
        ttl_s: A session not used for so long is forgotten, seconds.
        max_turns: Turns of a conversation that are kept; 0 = as many as the context holds.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        clock: Clock,
        begin: Callable[[], T],
        *,
        max_sessions: int = 16,
        max_bytes: int = 256 * 2**20,
        ttl_s: float = 1800.0,
        max_turns: int = 0,
    ) -> None:
        self.max_turns = max_turns
        self._clock = clock
        self._begin = begin
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._ttl_ns = round(ttl_s * NS_PER_S)
        self._sessions: OrderedDict[str, _Session[T]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._forget_old()
            return len(self._sessions)

    def get(self, session_id: str, *, must_exist: bool = False) -> T:
        """Return a session's conversation; a new one begins where there is none ('' = always).

        Raises:
            BadRequestError: It must exist, but has no turn or is gone (UNKNOWN_SESSION).
        """
        if not session_id and not must_exist:
            return self._begin()
        with self._lock:
            self._forget_old()
            session = self._sessions.get(session_id)
            if must_exist and (session is None or not session.conversation.has_turns):
                raise BadRequestError(
                    f'the conversation {session_id!r} is not known here (any more): it was not '
                    'used for long, made room for others, or the model was started again; '
                    'ask again with new frames to start a new one',
                    ErrorCode.UNKNOWN_SESSION,
                )
            if session is None:
                session = _Session(self._begin(), 0)
                self._sessions[session_id] = session
            self._use(session_id, session)
            self._forget_most()
            return session.conversation

    def peek(self, session_id: str) -> T:
        """Return a session's conversation without using it; an empty one where there is none."""
        with self._lock:
            self._forget_old()
            session = self._sessions.get(session_id)
            return self._begin() if session is None else session.conversation

    def put(self, session_id: str, before: T, after: T) -> bool:
        """Replace `before` by `after`; not where the session was reset since. Tell whether."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.conversation is not before:
                return False
            session.conversation = after
            self._use(session_id, session)
            self._forget_most()
            return True

    def reset(self, session_id: str = '') -> int:
        """Forget one session, or all of them ('' = all); return how many there were."""
        with self._lock:
            if session_id:
                return int(self._sessions.pop(session_id, None) is not None)
            number = len(self._sessions)
            self._sessions.clear()
            return number

    def _use(self, session_id: str, session: _Session[T]) -> None:
        session.used_ns = self._clock.now_ns()
        self._sessions.move_to_end(session_id)

    def _forget_old(self) -> None:
        oldest_ns = self._clock.now_ns() - self._ttl_ns
        for session_id in [k for k, s in self._sessions.items() if s.used_ns < oldest_ns]:
            del self._sessions[session_id]

    def _forget_most(self) -> None:
        def nbytes() -> int:
            return sum(session.conversation.nbytes for session in self._sessions.values())

        # The last one is in use right now.
        while len(self._sessions) > 1 and (
            len(self._sessions) > self._max_sessions or nbytes() > self._max_bytes
        ):
            self._sessions.popitem(last=False)
