"""Frames on their way to a model process: the pixels of each cross once.

The frames of the newest wish (`Prefix`) stay at the other end. What is sent after it, the next
wish or a question, names those among them instead of bringing them again. Both ends follow one
rule, and messages arrive in the order in which they are sent, so no end has to ask the other what
it holds; a new process begins with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from edge_vlm_ros.core import StoredFrame
from edge_vlm_ros.serving.process.messages import AskMessage, HeldFrame, PrefixMessage, WireFrame

Carrier: TypeAlias = 'AskMessage | PrefixMessage'


@dataclass(slots=True)
class FrameSender:
    """This end's knowledge of what the other one holds; the sending thread's."""

    _held: tuple[StoredFrame, ...] = ()

    def pack(self, message: Carrier) -> Carrier:
        """Return a message as it is sent."""
        if isinstance(message, AskMessage):
            question = message.question
            frames = self._shrink(question.frames)
            return AskMessage(replace(question, frames=()), frames)
        wish = message.prefix
        if wish is None:
            self._held = ()
            return message
        packed = PrefixMessage(replace(wish, frames=()), self._shrink(wish.frames))
        self._held = wish.frames
        return packed

    def _shrink(self, frames: Sequence[StoredFrame]) -> tuple[WireFrame, ...]:
        places = {id(frame): place for place, frame in enumerate(self._held)}
        return tuple(
            HeldFrame(places[id(frame)]) if id(frame) in places else frame for frame in frames
        )


@dataclass(slots=True)
class FrameReceiver:
    """The other end: it holds the frames of the last wish. The receiving thread's."""

    _held: tuple[StoredFrame, ...] = ()

    def unpack(self, message: Carrier) -> Carrier:
        """Return a message as it was before it was sent."""
        frames = tuple(
            self._held[frame.place] if isinstance(frame, HeldFrame) else frame
            for frame in message.frames
        )
        if isinstance(message, AskMessage):
            return AskMessage(replace(message.question, frames=frames))
        self._held = frames
        wish = message.prefix
        return PrefixMessage(None if wish is None else replace(wish, frames=frames))
