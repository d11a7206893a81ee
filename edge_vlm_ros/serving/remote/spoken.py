"""Conversations that a server is to go on with: kept here, for servers remember nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    BadRequestError,
    CompressedImage,
    ErrorCode,
    PromptTooLongError,
    TooManyFramesError,
)
from edge_vlm_ros.remote.messages import SentTalk, SentTurn
from edge_vlm_ros.serving.shown_frames import name_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_vlm_ros.core import FrameKey, Question, StoredFrame
    from edge_vlm_ros.remote.addresses import ServerAddress
    from edge_vlm_ros.remote.images import SentImage


@dataclass(frozen=True, slots=True)
class SpokenFrame:
    """A frame as it was shown to a server.

    Attributes:
        key: Names it.
        stored: The frame, with the JPEG that was sent in place of what the camera sent.
        image: That JPEG, and the size of the frame as it came.
    """

    key: FrameKey
    stored: StoredFrame
    image: SentImage

    @classmethod
    def of(cls, stored: StoredFrame, image: SentImage) -> SpokenFrame:
        """Keep a frame and what is sent of it; the camera's bytes are let go."""
        sent = replace(stored, image=CompressedImage('jpeg', image.jpeg))
        return cls(name_frame(stored), sent, image)


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """A finished turn.

    Attributes:
        text: The question.
        frames: Those shown in it for the first time, oldest first.
        choices: The question's.
        answer: What was answered.
    """

    text: str
    frames: tuple[SpokenFrame, ...]
    choices: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said and shown so far.

    Attributes:
        system_prompt: Of the first turn; '' = the model's own.
        turns: Oldest first.
        server: Who answered last, and has it in its cache.
    """

    system_prompt: str = ''
    turns: tuple[SpokenTurn, ...] = field(default=(), repr=False)
    server: ServerAddress | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the frames kept."""
        return sum(len(frame.image.jpeg) for frame in self.frames)

    @property
    def has_turns(self) -> bool:
        """Whether anything was said yet."""
        return bool(self.turns)

    @property
    def frames(self) -> tuple[SpokenFrame, ...]:
        """All frames shown, oldest first."""
        return tuple(frame for turn in self.turns for frame in turn.frames)

    def with_turn(self, turn: SpokenTurn, question: Question, server: ServerAddress) -> Spoken:
        """Return the conversation after one more turn."""
        system_prompt = self.system_prompt if self.turns else question.system_prompt
        return Spoken(system_prompt, (*self.turns, turn), server)

    def without_oldest(self, number: int, *, is_about_shown: bool) -> Spoken:
        """Return the conversation without its oldest turns.

        Args:
            number: Turns to forget.
            is_about_shown: The next question brings no frames: those shown last are kept, also
                where their turn goes; the oldest turn that stays shows them.
        """
        gone, kept = self.turns[:number], list(self.turns[number:])
        if is_about_shown and kept and not any(turn.frames for turn in kept):
            carried = next((turn.frames for turn in reversed(gone) if turn.frames), ())
            kept[0] = replace(kept[0], frames=carried)
        return replace(self, turns=tuple(kept))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may hold.

    Attributes:
        max_images: Images in it.
        max_bytes: Bytes of its images, as they are sent.
        context_tokens: What the model holds; 0 = not known.
        max_turns: Turns of a conversation that are kept; 0 = as many as fit.
    """

    max_images: int
    max_bytes: int
    context_tokens: int = 0
    max_turns: int = 0


@dataclass(frozen=True, slots=True)
class FittedTalk:
    """A question, and as much before it as fits.

    Attributes:
        before: What it follows on.
        new_frames: Those of its frames that were not shown yet.
        notes: What was left out, for people.
    """

    before: Spoken
    new_frames: tuple[SpokenFrame, ...]
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> tuple[SpokenFrame, ...]:
        """All frames in the request."""
        return (*self.before.frames, *self.new_frames)

    def talk(self, question: Question, *, tells_choices: bool) -> SentTalk:
        """Write what is sent; the last turn is the question."""

        def sent(
            text: str, frames: Iterable[SpokenFrame], choices: tuple[str, ...], answer: str | None
        ) -> SentTurn:
            images = tuple(frame.image for frame in frames)
            return SentTurn(text, images, choices if tells_choices else (), answer)

        past = [sent(t.text, t.frames, t.choices, t.answer) for t in self.before.turns]
        asked = sent(question.text, self.new_frames, question.choices, None)
        system_prompt = self.before.system_prompt or question.system_prompt
        return SentTalk(system_prompt, (*past, asked))


def fit_talk(
    question: Question, stored: Spoken, frames: Sequence[SpokenFrame], bounds: Bounds
) -> FittedTalk:
    """Choose how much of a conversation goes along with a question: the oldest turns go first.

    Args:
        question: What is asked.
        stored: The conversation so far.
        frames: The question's.
        bounds: What a request may hold.

    Raises:
        BadRequestError: Another system prompt than the conversation began with; or the frames
            have more bytes than may be sent.
        TooManyFramesError: What cannot be left out makes more images than the servers take.
        PromptTooLongError: The words alone are more than the model holds.
    """
    if stored.turns and question.system_prompt not in {'', stored.system_prompt}:
        raise BadRequestError(
            'the system prompt of a session is set by its first question; reset the session to '
            'change it'
        )
    dropped = _beyond_max_turns(stored, bounds.max_turns)
    while True:
        fitted = _cut(stored, frames, dropped)
        error = _error(fitted, question, bounds)
        if error is None or dropped >= len(stored.turns):
            break
        dropped += 1
    if error is not None:
        raise error
    if not dropped:
        return fitted
    turns = len(stored.turns)
    note = (
        f'the oldest {dropped} of {turns} turns of this conversation were forgotten to make room'
    )
    return replace(fitted, notes=(note,))


def _cut(stored: Spoken, frames: Sequence[SpokenFrame], dropped: int) -> FittedTalk:
    before = stored.without_oldest(dropped, is_about_shown=not frames)
    carried: tuple[SpokenFrame, ...] = ()
    if not frames and not before.turns and stored.turns:
        carried = next((turn.frames for turn in reversed(stored.turns) if turn.frames), ())
    seen = {frame.key for frame in before.frames}
    new = tuple(frame for frame in frames if frame.key not in seen)
    return FittedTalk(before, (*carried, *new))


def _beyond_max_turns(stored: Spoken, most: int) -> int:
    """Count the turns to forget, a quarter of all at once, where there is no room for more.

    A quarter, because each time the server's cache has to begin again.
    """
    turns = len(stored.turns)
    return turns + 1 - max(1, most * 3 // 4) if 0 < most <= turns else 0


def _error(fitted: FittedTalk, question: Question, bounds: Bounds) -> BadRequestError | None:
    """Say why a request does not fit; None = it does."""
    images = len(fitted.frames)
    if images > bounds.max_images:
        return TooManyFramesError(
            f'{images} images in this conversation, the servers take {bounds.max_images} '
            '(option max_images)'
        )
    nbytes = sum(frame.image.url_bytes for frame in fitted.frames)
    if nbytes > bounds.max_bytes:
        return BadRequestError(
            f'{images} images have {nbytes} bytes as they are sent, the limit is '
            f'{bounds.max_bytes} (option max_request_kb); a smaller max_side makes them smaller',
            ErrorCode.TOO_MANY_FRAMES,
        )
    tokens = fitted.talk(question, tells_choices=False).least_tokens
    if 0 < bounds.context_tokens <= tokens:
        return PromptTooLongError(
            f'the prompt has at least {tokens} tokens ({images} for images), the model takes '
            f'{bounds.context_tokens}'
        )
    return None
