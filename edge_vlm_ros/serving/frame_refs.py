"""How an answer names the frames that it is based on."""

from __future__ import annotations

from edge_vlm_ros.core import NS_PER_S, FrameRef, Question, RawImage, StoredFrame


def reference(stored: StoredFrame, size: tuple[int, int], asked_ns: int) -> FrameRef:
    """Name a frame that an answer is based on.

    Args:
        stored: The frame.
        size: Width and height, pixels; (0, 0) = not known.
        asked_ns: Steady time when the question came, nanoseconds; 0 = not known.
    """
    since_ns = asked_ns - stored.received_ns if stored.received_ns else 0
    return FrameRef(
        stored.source,
        stored.stamp_ns,
        *size,
        age_s=max(0, since_ns) / NS_PER_S,
        taken_ns=stored.taken_ns,
    )


def frames_of(question: Question, asked_ns: int) -> tuple[FrameRef, ...]:
    """Name the frames of a question that ends where they are not decoded.

    The size of a compressed one is not known there.

    Args:
        question: What was asked.
        asked_ns: Steady time when it came, nanoseconds.
    """
    return tuple(reference(stored, claimed_size(stored), asked_ns) for stored in question.frames)


def claimed_size(stored: StoredFrame) -> tuple[int, int]:
    """Return width and height of a frame that was not decoded; (0, 0) for a compressed one."""
    image = stored.image
    return (image.width, image.height) if isinstance(image, RawImage) else (0, 0)
