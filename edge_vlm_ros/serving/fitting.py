"""What of a conversation and of a question's frames goes into one prompt, and what is left out.

The policy, in this order:

* Moments of clips are left out, evenly in time, until the question fits by itself; each camera
  keeps its newest. Images that came with the request all stay: what does not fit is refused.
* Where the conversation has more turns than are to be kept, or does not fit any more, its oldest
  turns go: until it fits and a quarter is free, so that not every turn to come has to go through
  the whole prompt again. Frames go with their turns; a question that brings none keeps those that
  were shown last.
* What was left out is said in the answer (`notes`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import PromptTooLongError, Readiness, TooManyFramesError, join_parts
from edge_vlm_ros.serving.conversation import Conversation
from edge_vlm_ros.serving.shown_frames import count_frames, thin_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.core import EdgeVlmError, EngineLimits, FeatureKey, PromptPart, Question
    from edge_vlm_ros.families.base import ModelFamily
    from edge_vlm_ros.serving.shown_frames import ShownFrames

ANSWER_SHARE = 8
"""One part in so many of the context is kept free for the answer, where turns can make room."""


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits.

    Attributes:
        conversation: What the question follows on.
        new_frames: Those of its frames that the conversation has not shown.
        prompt: All tokens before the answer.
        words: Tokens at its end that are the question's words, and what follows them.
        notes: What was left out, for people.
    """

    conversation: Conversation
    new_frames: tuple[ShownFrames, ...]
    prompt: PromptPart
    words: int
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> tuple[ShownFrames, ...]:
        """All frames in the prompt; `VisionSpan.image` is an index into them."""
        return (*self.conversation.frames, *self.new_frames)

    @property
    def keys(self) -> tuple[FeatureKey, ...]:
        """Their names."""
        return tuple(frame.key for frame in self.frames)

    @property
    def before(self) -> PromptPart:
        """The prompt up to the question's words."""
        return self.prompt.slice(0, len(self.prompt) - self.words)

    def readiness(self, shared: int, *, is_encoded: bool) -> Readiness:
        """Say how much of the prompt was there before the question.

        Args:
            shared: Tokens at its start that the KV cache held.
            is_encoded: The features of the rest were kept.
        """
        if shared >= len(self.prompt) - self.words:
            return Readiness.PREFIX
        spans = self.prompt.spans
        if any(span.stop <= shared for span in spans):
            return Readiness.APPENDED
        return Readiness.ENCODED if spans and is_encoded else Readiness.NONE


class PromptFitter:
    """Fits questions into the prompts of one model.

    Args:
        family: The model's.
        limits: The engine's.
        max_turns: Turns of a conversation that are kept; 0 = as many as fit.
    """

    def __init__(self, family: ModelFamily, limits: EngineLimits, max_turns: int) -> None:
        self._family = family
        self._limits = limits
        self._max_turns = max_turns
        self._longest = min(limits.longest_prompt, limits.context_tokens)
        self._last: tuple[tuple[str, tuple[FeatureKey, ...]], PromptPart] | None = None

    def fit(
        self, question: Question, stored: Conversation, frames: Sequence[ShownFrames]
    ) -> FittedPrompt:
        """Write the prompt of a question, with as much before it as fits.

        Args:
            question: What is asked.
            stored: The conversation so far.
            frames: The question's, prepared.

        Raises:
            BadRequestError: Another system prompt than the conversation began with.
            TooManyFramesError: What cannot be left out makes more images than the model takes.
            PromptTooLongError: It makes more tokens than the model takes.
        """
        shown = self._thin_out(question, stored, frames)
        dropped = self._beyond_max_turns(stored)
        fitted = self._write(question, stored, shown, dropped)
        error = self._error(fitted, question)
        is_tight = error is not None
        while is_tight and dropped < len(stored.turns):
            dropped += 1
            fitted = self._write(question, stored, shown, dropped)
            error = self._error(fitted, question)
            is_tight = error is not None or len(fitted.prompt) > self._longest * 3 // 4
        if error is not None:
            raise error
        notes = _notes(count_frames(shown), len(question.frames), dropped, len(stored.turns))
        return replace(fitted, notes=notes)

    def _write(
        self,
        question: Question,
        stored: Conversation,
        shown: Sequence[ShownFrames],
        dropped: int,
    ) -> FittedPrompt:
        conversation, carried = stored.without_oldest(
            self._family, dropped, is_about_shown=not shown
        )
        new_frames = (*carried, *conversation.new_frames(shown))
        before = self._before(conversation, new_frames, question.system_prompt)
        words = self._family.render_suffix(
            question.text, before.next_position, follows_images=bool(new_frames)
        )
        prompt = join_parts((before, words))
        return FittedPrompt(conversation, new_frames, prompt, len(words))

    def _before(
        self,
        conversation: Conversation,
        new_frames: Sequence[ShownFrames],
        system_prompt: str,
    ) -> PromptPart:
        """Write the prompt up to the question's words, unless it was the last that was written.

        It was where it was made ready ahead; each frame costs a little, and nothing else of a
        question that is ready does.
        """
        if conversation.history is not None or conversation.system_prompt:
            return conversation.render_before(self._family, new_frames, system_prompt)
        name = (system_prompt, tuple(frame.key for frame in new_frames))
        if self._last is None or self._last[0] != name:
            written = conversation.render_before(self._family, new_frames, system_prompt)
            self._last = (name, written)
        return self._last[1]

    def _thin_out(
        self, question: Question, stored: Conversation, frames: Sequence[ShownFrames]
    ) -> tuple[ShownFrames, ...]:
        """Leave out moments of clips until the question fits by itself, or no more can be."""
        alone = Conversation(stored.system_prompt)
        kept = tuple(frames)
        while kept:
            fitted = self._write(question, alone, kept, 0)
            images, tokens = _images(kept), len(fitted.prompt)
            most = len(kept)
            if self._limits.max_images and images > self._limits.max_images:
                most = min(most - 1, most * self._limits.max_images // images)
            elif tokens > self._longest:
                # Not too few: what the words take does not become less with the frames.
                most = min(most - 1, most * self._longest // tokens)
            fewer = thin_out(kept, most)
            if len(fewer) == len(kept):
                break
            kept = fewer
        return kept

    def _beyond_max_turns(self, stored: Conversation) -> int:
        """Count the turns to forget, a quarter of all at once, where there is no room for more."""
        turns = len(stored.turns)
        if not self._max_turns or turns < self._max_turns:
            return 0
        return turns + 1 - max(1, self._max_turns * 3 // 4)

    def _error(self, fitted: FittedPrompt, question: Question) -> EdgeVlmError | None:
        """Say why a prompt does not fit; None = it does."""
        frames = (*fitted.conversation.frames, *fitted.new_frames)
        images, most = _images(frames), self._limits.max_images
        if most and images > most:
            tiled = ', each tile counted,' if images > len(frames) else ''
            return TooManyFramesError(
                f'{count_frames(frames)} frames make {images} images{tiled} in this conversation, '
                f'the model takes {most} in one prompt'
            )
        history = fitted.conversation.history
        tokens = len(fitted.prompt)
        if tokens > self._longest:
            earlier = f', {len(history)} of them from earlier turns' if history else ''
            return PromptTooLongError(
                f'the prompt has {tokens} tokens ({fitted.prompt.vision_tokens} for '
                f'{count_frames(frames)} frames{earlier}), the model takes {self._longest}'
            )
        room = self._limits.context_tokens // ANSWER_SHARE
        wanted = min(question.sampling.max_tokens or room, room)
        if history is not None and tokens + wanted > self._limits.context_tokens:
            return PromptTooLongError(f'{tokens} tokens leave no room for {wanted} of an answer')
        return None


def _images(frames: Sequence[ShownFrames]) -> int:
    return sum(frame.prepared.inputs.images for frame in frames)


def _notes(shown: int, chosen: int, dropped: int, turns: int) -> tuple[str, ...]:
    notes = []
    if shown < chosen:
        notes.append(f'of {chosen} frames {shown}, evenly in time, fit the model and were shown')
    if dropped:
        notes.append(
            f'the oldest {dropped} of {turns} turns of this conversation were forgotten to make '
            'room'
        )
    return tuple(notes)
