"""How much a pipeline keeps and queues."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """How much a pipeline keeps and queues.

    Attributes:
        max_waiting: Questions that may wait beside the running one; the next one gets BUSY.
        max_cached_frames: Frames whose features are kept.
        max_cached_bytes: Bytes of features that are kept.
        max_sessions: Conversations that are kept.
        max_session_bytes: Bytes of the frames that conversations keep.
        session_ttl_s: A conversation not used for so long is forgotten, seconds.
    """

    max_waiting: int = 8
    max_cached_frames: int = 64
    max_cached_bytes: int = 256 * 2**20
    max_sessions: int = 16
    max_session_bytes: int = 256 * 2**20
    session_ttl_s: float = 1800.0
