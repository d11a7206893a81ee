"""The decode steps of an answer: in the model's own words, or one of the question's choices."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_vlm_ros.core import DeviceError, FinishReason, PromptTooLongError
from edge_vlm_ros.engines.base import ChosenToken
from edge_vlm_ros.scheduling import Decoded
from edge_vlm_ros.serving.conversation import answer_part
from edge_vlm_ros.serving.places import detect
from edge_vlm_ros.text import ClosedAnswer, FreeText, spell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge_vlm_ros.core import Clock, PromptPart, Question
    from edge_vlm_ros.engines.base import Engine
    from edge_vlm_ros.families.base import ModelFamily
    from edge_vlm_ros.serving.kv_slots import KvSlots
    from edge_vlm_ros.serving.loading import LoadedModel
    from edge_vlm_ros.serving.running import Running, Turn

_UNLIKELY = 0.01
"""Below, the choices are not what the model would say: worth a word to who acts on the answer."""


class AnswerSteps:
    """Makes answers, one token at a time.

    Args:
        loaded: The model.
        slots: Its KV caches; the prompt is in the chosen one.
        clock: Steady time.
    """

    def __init__(self, loaded: LoadedModel, slots: KvSlots, clock: Clock) -> None:
        self._engine: Engine = loaded.engine
        self._family: ModelFamily = loaded.family
        self._chip = loaded.chip
        self._slots = slots
        self._clock = clock

    def begin(self, question: Question, prompt: PromptPart) -> FreeText | ClosedAnswer:
        """Begin the answer to a question.

        Args:
            question: With its choices, if any: it is restricted to them where scores can be read
                and the KV cache can go back.
            prompt: All tokens before the answer.

        Raises:
            BadRequestError: The model cannot say a choice, or not tell two of them apart.
            PromptTooLongError: There is no room for the longest choice.
        """
        family, limits = self._family, self._engine.limits
        if not question.choices or not (limits.has_logits and self._slots.can_go_back):
            return FreeText(family.tokenizer, family.stop_tokens, question.sampling, question.stop)
        spellings = spell(question.choices, family.tokenizer, family.encode_answer)
        answer = ClosedAnswer(question.choices, spellings, family.stop_tokens, question.sampling)
        if len(prompt) + answer.longest > limits.context_tokens:
            raise PromptTooLongError(
                f'the prompt has {len(prompt)} tokens, the longest choice {answer.longest}, and '
                f'the context holds {limits.context_tokens}'
            )
        return answer

    def decode(self, running: Running, turn: Turn) -> Decoded:
        """Make one step of an answer.

        Raises:
            BadOutputError: What the model says is no answer.
            DeviceError: The chip failed, or computed nonsense.
        """
        answer = turn.answer
        if isinstance(answer, ClosedAnswer):
            delta = self._search(running, turn, answer)
        else:
            delta = self._speak(running, turn, answer)
        running.reason = answer.reason
        is_last = running.reason is not FinishReason.NONE
        if is_last:
            running.tail = delta
            self._note_places(running, turn, answer)
        else:
            running.stream.push(delta)
        if delta and not running.first_text_ns:
            running.first_text_ns = self._clock.now_ns()
        return Decoded(is_last)

    def _speak(self, running: Running, turn: Turn, answer: FreeText) -> str:
        """Make the next token of an answer in the model's own words; return new text."""
        started_ns = self._clock.now_ns()
        engine, sampling = self._engine, running.question.sampling
        if answer.tokens:
            self._append(turn, answer.tokens[-1])
        is_penalised = sampling.repetition_penalty != 1  # By no net of a chip.
        chosen = engine.logits() if is_penalised else engine.next_token(sampling)
        if isinstance(chosen, ChosenToken):
            token = chosen.token
        else:
            with self._named():
                token = answer.choose(chosen.values)
        running.note_token(started_ns, self._clock.now_ns())
        is_full = engine.kv.length >= engine.limits.context_tokens
        text = answer.take(token, is_full=is_full)
        if answer.has_thought and answer.reason is not FinishReason.NONE:
            running.notes.append('the model thought aloud first, which is no part of its answer')
        return text

    def _search(self, running: Running, turn: Turn, answer: ClosedAnswer) -> str:
        """Run one token towards the scores that are wanted next, or take them."""
        started_ns = self._clock.now_ns()
        if not answer.is_done:
            path = answer.path
            self._cut(turn, _shared(turn.run, path))
            if len(turn.run) < len(path):
                if not turn.run:
                    self._slots.keep()  # Other ways through the choices begin here, too.
                self._append(turn, path[len(turn.run)])
                answer.step()
            if len(turn.run) < len(path):
                return ''
            scores = self._engine.logits()
            with self._named():
                answer.score(scores.values)
            running.note_token(started_ns, self._clock.now_ns())
        free = answer.free_probability
        if answer.is_done and free is not None and free < _UNLIKELY:
            running.notes.append(
                'the choices are not what the model would have said by itself: all their first '
                f'tokens together have probability {free:.2g}'
            )
        return answer.choice

    def _note_places(self, running: Running, turn: Turn, answer: FreeText | ClosedAnswer) -> None:
        """Note the places that a finished answer names, where its model can name any."""
        grounding = self._family.grounding
        if grounding is None or isinstance(answer, ClosedAnswer):
            return
        text = self._family.tokenizer.decode(answer.said, keep_special=True)
        running.detections, note = detect(text, grounding, turn)
        if note:
            running.notes.append(note)

    def _append(self, turn: Turn, token: int) -> None:
        """Append an answer token to the KV cache."""
        position = turn.prompt.next_position + len(turn.run)
        self._engine.decode(token, position)
        self._slots.append(answer_part((token,), position, like=turn.prompt), ())
        turn.run.append(token)

    def _cut(self, turn: Turn, kept: int) -> None:
        """Cut the KV cache after so many of the answer's tokens, or fewer.

        Raises:
            DeviceError: It could not keep what it would have to go back to.
        """
        if kept >= len(turn.run):
            return
        left = self._slots.cut(len(turn.prompt) + kept) - len(turn.prompt)
        if left < 0:
            raise DeviceError(
                f'chip {self._chip}: there was no memory for a snapshot of the KV cache, and the '
                'choices cannot be scored without one'
            )
        del turn.run[left:]

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in an error about scores whose they are."""
        try:
            yield
        except DeviceError as error:
            raise DeviceError(f'chip {self._chip}: {error.message}') from error


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens at the start that are the same."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
