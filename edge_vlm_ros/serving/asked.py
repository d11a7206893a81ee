"""A question that one of two backends is asked, and perhaps the other: what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge_vlm_ros.core import Answer, EdgeVlmError, Question, Timings
from edge_vlm_ros.serving.backend import Backend
from edge_vlm_ros.serving.dialogues import Dialogue
from edge_vlm_ros.serving.frame_refs import frames_of
from edge_vlm_ros.serving.model_info import signed
from edge_vlm_ros.serving.stream import AnswerStream


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    name: str
    backend: Backend


@dataclass(slots=True, eq=False)
class Asked:
    """A question that is not over; its fields change under the pipeline's lock.

    Attributes:
        question: With its request_id and the time it came.
        stream: Where its answer goes.
        dialogue: Its conversation when it came.
        plan: Who is still to be asked.
        side: Who was asked last.
        attempt: Stands for the asking that goes on; None = none does.
        has_said: A word of its answer is out: from here on nobody else is asked.
        due_ns: Steady time when a first word has to be there; 0 = it may take its time.
        is_cancelled: Somebody took it back.
        is_retold: Who is asked was told the conversation, whatever it remembers.
        best: A whole answer that could be better.
        reasons: Why others were asked, for people.
    """

    question: Question
    stream: AnswerStream
    dialogue: Dialogue
    plan: list[Side]
    side: Side | None = None
    attempt: object | None = None
    has_said: bool = False
    due_ns: int = 0
    is_cancelled: bool = False
    is_retold: bool = False
    best: Answer | None = None
    reasons: list[str] = field(default_factory=list)

    def failed(self, error: EdgeVlmError, now_ns: int, text: str = '') -> Answer:
        """Return its answer where nobody gives it one.

        Args:
            error: Why.
            now_ns: Steady time, nanoseconds.
            text: What has been said.
        """
        question, asked_ns = self.question, self.question.asked_ns
        failed = Answer.failed(
            question.request_id, error, session_id=question.session_id, text=text
        )
        timings = Timings.outside(
            asked_ns=asked_ns,
            now_ns=now_ns,
            begun_ns=self.stream.begun_ns,
            first_text_ns=self.stream.first_text_ns,
        )
        whole = replace(failed, frames=frames_of(question, asked_ns), timings=timings)
        return signed(whole, self.side.backend.info if self.side is not None else None)

    def reason(self, why: str) -> str:
        """Say of whom something is true."""
        info = self.side.backend.info if self.side is not None else None
        return why if info is None else f'{info.model} on {info.chip}: {why}'
