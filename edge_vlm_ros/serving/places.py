"""The places that an answer names, each in the frame it is on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NO_DETECTIONS, Detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.families.grounding import Grounding
    from edge_vlm_ros.serving.running import Turn
    from edge_vlm_ros.serving.shown_frames import ShownFrames

_UNREADABLE = (0, 0)


def detect(answer: str, grounding: Grounding, turn: Turn) -> tuple[Detections, str]:
    """Return the places that an answer names, and what the caller should know of them.

    Models do not say which of several frames a place is on. So it is on the one frame that this
    turn showed or, if it showed none, on the one that the conversation is about; of several
    frames none is guessed.

    Args:
        answer: With its template tokens spelled out.
        grounding: How the model names places.
        turn: The answer's.
    """
    named = grounding.count(answer)
    if not named:
        return NO_DETECTIONS, ''
    shown = turn.new_frames or turn.frames
    frames = sum(size != _UNREADABLE for each in shown for size in each.prepared.sizes)
    if frames != 1:
        note = f'the answer names {named} places, but not on which of {frames} frames they are'
        return Detections(dropped=named), note
    (each,) = (each for each in shown if any(s != _UNREADABLE for s in each.prepared.sizes))
    (size,) = (size for size in each.prepared.sizes if size != _UNREADABLE)
    placed = grounding.detect(answer, each.prepared.inputs, size)
    index = _index_of(each, turn.frames)
    found = tuple(replace(detection, frame=index) for detection in placed.found)
    note = f'{placed.dropped} of {named} places cannot be in the frame' if placed.dropped else ''
    return Detections(found, placed.dropped), note


def _index_of(wanted: ShownFrames, frames: Sequence[ShownFrames]) -> int:
    """Return the index of a group's one frame among the frames that the answer names."""
    before = frames[: next(i for i, each in enumerate(frames) if each is wanted)]
    return sum(size != _UNREADABLE for each in before for size in each.prepared.sizes)
