"""Places that a model named in a frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detection:
    """A box or a point in a frame as its camera sent it.

    Attributes:
        label: What the model calls it; '' = it did not say.
        x: Left edge of the box, or the point; pixels from the frame's left edge.
        y: Upper edge of the box, or the point; pixels from the frame's upper edge.
        width: Pixels; 0 = a point.
        height: Pixels; 0 = a point.
        frame: Which of the answer's frames: its index.
    """

    label: str
    x: float
    y: float
    width: float = 0.0
    height: float = 0.0
    frame: int = 0


@dataclass(frozen=True, slots=True)
class Detections:
    """The places that one answer names.

    Attributes:
        found: Those that can be.
        dropped: How many cannot: outside the frame, turned round, of no size, on a frame that the
            model does not name.
    """

    found: tuple[Detection, ...] = ()
    dropped: int = 0


NO_DETECTIONS = Detections()
