"""Conversations that end with their model process."""

from __future__ import annotations

from collections import OrderedDict

from edge_vlm_ros.core import BadRequestError, ErrorCode


def lost_session(session_id: str) -> BadRequestError:
    """Make the error of a question that means to go on with a lost conversation."""
    return BadRequestError(
        f'the conversation {session_id!r} was lost with the model process, which was started '
        'anew; ask again to start a new one',
        ErrorCode.UNKNOWN_SESSION,
    )


class KnownSessions:
    """Which conversations had a turn, and which of them were lost; the owner holds a lock.

    A question that means to go on with a lost one is told so, once; after that the conversation
    begins anew.

    Args:
        most: Names that are remembered, of each kind; the oldest go first.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lost: OrderedDict[str, None] = OrderedDict()

    def note(self, session_id: str) -> None:
        """Take note of a conversation's turn; '' is none."""
        if session_id:
            self._put(self._known, session_id)

    def lose(self) -> None:
        """The process is gone, and all conversations with it."""
        for session_id in self._known:
            self._put(self._lost, session_id)
        self._known.clear()

    def is_known(self, session_id: str) -> bool:
        """Whether a conversation has had a turn with the process that lives."""
        return session_id in self._known

    def is_lost(self, session_id: str) -> bool:
        """Whether a conversation was lost and nobody was told yet."""
        return session_id in self._lost

    def forget(self, session_id: str = '') -> None:
        """Have a conversation, or all (''), begin anew."""
        for names in (self._known, self._lost):
            if session_id:
                names.pop(session_id, None)
            else:
                names.clear()

    def _put(self, names: OrderedDict[str, None], session_id: str) -> None:
        names[session_id] = None
        names.move_to_end(session_id)
        while len(names) > self._most:
            names.popitem(last=False)
