"""What a backend makes ready before a question is asked, and how it tells of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from edge_vlm_ros.core import BadFrame, FrameKey, Prefix, ShownAs, StoredFrame


@dataclass(frozen=True, slots=True)
class AheadReport:
    """What is ready, and what has been spent on it since the model was loaded.

    Attributes:
        wanted: Frames of the newest wish, oldest first.
        ready: Frames of the wish that became whole in the KV cache last; () = none yet.
        tokens: Tokens of that prefix.
        encodes: Frames, or moments of a video, that went through the vision tower ahead.
        pieces: Pieces of prefixes that were prefilled.
        restarts: How often a prefix did not go on from the one before it.
        failures: Wishes and offers that could not be made true.
        busy_s: Seconds of work ahead.
        problem: Why the newest wish could not be made true; '' = it was, or may still be.
        fits: How many of its frames fit, where it was too long for the model; 0 = not known.
        bad_frames: Those of its frames that cannot be decoded.
    """

    wanted: tuple[FrameKey, ...] = ()
    ready: tuple[FrameKey, ...] = ()
    tokens: int = 0
    encodes: int = 0
    pieces: int = 0
    restarts: int = 0
    failures: int = 0
    busy_s: float = 0.0
    problem: str = ''
    fits: int = 0
    bad_frames: tuple[BadFrame, ...] = ()


OnAhead: TypeAlias = Callable[[AheadReport], None]
"""Given each report, on a thread of the backend's; must be quick."""


@runtime_checkable
class PreparesAhead(Protocol):
    """A backend that uses the time before a question; safe from several threads.

    Whatever it makes ready, an answer is the one that it would have been without.
    """

    def offer_frames(self, frames: Sequence[StoredFrame], shown_as: ShownAs | None = None) -> None:
        """Have frames prepared and encoded while nobody asks.

        Of each camera the newest offer counts; frames that cannot be prepared or encoded are
        logged and left alone.

        Args:
            frames: As a question would show them, oldest first; not changed meanwhile.
            shown_as: As `Question.shown_as`: a frame of a group that the question will show is
                offered as one AMONG_OTHERS.

        Raises:
            NotReadyError: The backend is closed.
        """
        ...

    def want_prefix(self, prefix: Prefix | None) -> None:
        """Have all of a prompt before the question's words put into the KV cache.

        While nobody asks; a question waits for the piece of work under way and no longer. The
        newest wish counts, also after questions about something else.

        Args:
            prefix: What is wanted; None = nothing any more. Its frames are not changed meanwhile.

        Raises:
            NotReadyError: The backend is closed.
        """
        ...

    def listen_ahead(self, on_ahead: OnAhead) -> None:
        """Have reports given to `on_ahead` from now on, and to nobody else."""
        ...
