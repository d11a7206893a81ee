"""How much a pipeline keeps and queues."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.scheduling import QueuePolicy


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """How much a pipeline keeps and queues.

    Attributes:
        max_waiting: Questions that may wait beside the running one.
        queue_policy: Who gets BUSY, or PREEMPTED, where there is no room.
        newest_wins: Cameras of which only the newest question waits (`QuestionQueue`).
        max_cached_frames: Frames whose features are kept.
        max_cached_bytes: Bytes of features that are kept.
        max_sessions: Conversations that are kept.
        max_session_bytes: Bytes of the frames that conversations keep.
        session_ttl_s: A conversation not used for so long is forgotten, seconds.
        max_session_turns: Turns of a conversation that are kept; the oldest go first. 0 = as many
            as the context holds.
        ahead_duty: Share of the chip's time that work ahead may take while nobody asks; above 0, 1
            at most.
        live_s: So long after its last answer a conversation keeps its rows in the KV cache,
            seconds, where a prefix that belongs elsewhere is wanted.
    """

    max_waiting: int = 8
    queue_policy: QueuePolicy = QueuePolicy.QUEUE
    newest_wins: tuple[str, ...] = ()
    max_cached_frames: int = 64
    max_cached_bytes: int = 256 * 2**20
    max_sessions: int = 16
    max_session_bytes: int = 256 * 2**20
    session_ttl_s: float = 1800.0
    max_session_turns: int = 0
    ahead_duty: float = 1.0
    live_s: float = 30.0

    @property
    def max_held(self) -> int:
        """Questions that may wait for the model to be loaded: those that would run or wait."""
        return 1 if self.queue_policy is QueuePolicy.REJECT else 1 + self.max_waiting
