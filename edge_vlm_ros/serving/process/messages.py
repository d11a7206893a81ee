"""What the two processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from edge_vlm_ros.core import (
    AnswerChunk,
    EndNeeds,
    ErrorCode,
    Prefix,
    Question,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.serving.ahead import AheadReport
from edge_vlm_ros.serving.model_info import ModelInfo, ModelSpec
from edge_vlm_ros.serving.process.printed import LogLine
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.standing import Standing
from edge_vlm_ros.serving.step import Step


class EnginePhase(Enum):
    """Where a model process stands."""

    STARTING = 'starting'
    READY = 'ready'
    STALLED = 'stalled'
    FAILED = 'failed'
    CLOSED = 'closed'


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a model is loaded.

    Attributes:
        loaded: Parts that are.
        total: Parts in all.
    """

    loaded: int
    total: int

    def __str__(self) -> str:
        return f'{self.loaded} of {self.total} parts'


@dataclass(frozen=True, slots=True)
class EngineState:
    """Where a model process stands, and why.

    Attributes:
        phase: STARTING also while it starts again after its death; STALLED = it was ready, and
            gives no sign of life; FAILED = it will not start again by itself; CLOSED = `close` was
            called, or `start` was not yet.
        info: The model, once it was ready; also while it is loaded again.
        error_code: Why it failed, or why it starts again; NONE at the first start.
        message: For people: progress, or what went wrong.
        restarts: How often it was started again.
        loading: How far the model is loaded, while it loads and reports that.
        is_set_up_wrong: It failed by what only a change of the set-up can mend.
        standing: What the backend says of itself, where what answers can be lost and found again.
    """

    phase: EnginePhase
    info: ModelInfo | None = None
    error_code: ErrorCode = ErrorCode.NONE
    message: str = ''
    restarts: int = 0
    loading: LoadProgress | None = None
    is_set_up_wrong: bool = False
    standing: Standing = field(default_factory=Standing)

    @property
    def is_ready(self) -> bool:
        """Whether questions are answered."""
        return self.phase is EnginePhase.READY


# --- to the model process ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenMessage:
    """The first message: which model to serve."""

    spec: ModelSpec
    settings: ServingSettings
    log_level: int


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """Stands for a frame that the other end holds: one of the newest wish, by its place there."""

    place: int


WireFrame: TypeAlias = 'StoredFrame | HeldFrame'


@dataclass(frozen=True, slots=True)
class AskMessage:
    """A question, with a request_id.

    Attributes:
        question: On the way without its frames (see `wire_frames`).
        frames: Those, on the way.
    """

    question: Question
    frames: tuple[WireFrame, ...] = ()


@dataclass(frozen=True, slots=True)
class PrefixMessage:
    """What is wanted in the KV cache; None = nothing any more.

    Attributes:
        prefix: On the way without its frames (see `wire_frames`).
        frames: Those, on the way.
    """

    prefix: Prefix | None
    frames: tuple[WireFrame, ...] = ()


@dataclass(frozen=True, slots=True)
class OfferMessage:
    """Frames to be encoded ahead."""

    frames: tuple[StoredFrame, ...]
    shown_as: ShownAs | None


@dataclass(frozen=True, slots=True)
class CancelMessage:
    """Cancel a question, or all ('')."""

    request_id: str = ''


@dataclass(frozen=True, slots=True)
class ResetMessage:
    """Forget a conversation, or all ('')."""

    session_id: str = ''


@dataclass(frozen=True, slots=True)
class CloseMessage:
    """End in order."""


Request: TypeAlias = (
    'OpenMessage | AskMessage | PrefixMessage | OfferMessage | CancelMessage | ResetMessage'
    ' | CloseMessage'
)

# --- from the model process ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChunkMessage:
    """A piece of an answer."""

    chunk: AnswerChunk


@dataclass(frozen=True, slots=True)
class BegunMessage:
    """Work for a question begins, at this steady time in nanoseconds."""

    request_id: str
    begun_ns: int


@dataclass(frozen=True, slots=True)
class StateMessage:
    """The model process stands elsewhere now."""

    state: EngineState


@dataclass(frozen=True, slots=True)
class StandingMessage:
    """Another one would answer the next question now, or none."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class BeatMessage:
    """A sign of life: a step of work begins or is under way, or there is nothing to do."""

    step: Step


@dataclass(frozen=True, slots=True)
class LogMessage:
    """Something was logged."""

    line: LogLine


@dataclass(frozen=True, slots=True)
class NeedsMessage:
    """What the model process needs to end in order, from now on."""

    needs: EndNeeds


@dataclass(frozen=True, slots=True)
class AheadMessage:
    """What is ready before it is asked about."""

    report: AheadReport


Report: TypeAlias = (
    'ChunkMessage | BegunMessage | StateMessage | StandingMessage | BeatMessage | AheadMessage'
    ' | LogMessage | NeedsMessage'
)
