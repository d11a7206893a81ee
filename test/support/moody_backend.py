"""Canned backends that fail when they are told to: both ends of a fallback."""

from __future__ import annotations

import threading
from dataclasses import replace

from edge_vlm_ros.core import Answer, Clock, DeadlineError, DeviceError, EdgeVlmError, Question
from edge_vlm_ros.serving.model_info import ModelInfo
from edge_vlm_ros.serving.standing import OnStanding, Standing
from edge_vlm_ros.serving.stream import AnswerStream
from edge_vlm_ros.text import match_choice
from support.canned_backend import PAUSE_S, CannedBackend


class MoodyBackend(CannedBackend):
    """A canned backend in a mood, with words of its own.

    Args:
        model: Its name.
        chip: Its chip.
        clock: Steady time.
    """

    def __init__(self, model: str, chip: str, clock: Clock | None = None) -> None:
        super().__init__(model, clock)
        self._info = ModelInfo(model=model, chip=chip, max_images=2)
        self.error: EdgeVlmError | None = None
        """Ends every question at once, where there is one."""

        self.is_mute = False
        """It says nothing until the question is over."""

        self.breaks = False
        """It breaks after a word."""

        self.says = ''
        """Instead of the question's words."""

        self.probability: float | None = None
        """Of its choices."""

        self.asked: list[Question] = []

    def _answer(self, question: Question, stream: AnswerStream) -> None:
        self.asked.append(question)
        if self.error is not None:
            self._fail(stream, self.error)
        elif self.is_mute:
            self._brood(question, stream)
        elif self.breaks:
            stream.push('Well, ')
            self._fail(stream, DeviceError('the line broke'))
        elif self.says:
            stream.push(self.says)
            self._finish(stream, lambda text: self._good(question, text))
        else:
            super()._answer(question, stream)

    def _brood(self, question: Question, stream: AnswerStream) -> None:
        stream.begin(self._clock.now_ns())
        while not stream.done:
            if 0 < question.deadline_ns <= self._clock.now_ns():
                self._fail(stream, DeadlineError('out of time'))
            threading.Event().wait(PAUSE_S)

    def _good(self, question: Question, text: str) -> Answer:
        choice = match_choice(text, question.choices)
        probability = self.probability if choice else None
        good = super()._good(question, text)
        return replace(good, choice=choice, choice_probability=probability)


class OutspokenBackend(MoodyBackend):
    """One that knows by itself whether it can answer."""

    def __init__(self, model: str, chip: str, clock: Clock | None = None) -> None:
        super().__init__(model, chip, clock)
        self._standing = Standing(self._info)
        self._on_standing: OnStanding | None = None

    @property
    def standing(self) -> Standing:
        """How it is."""
        return self._standing

    def listen_standing(self, on_standing: OnStanding) -> None:
        """Tell it of changes."""
        self._on_standing = on_standing

    def turn(self, outage: str) -> None:
        """Be out of order, for a reason, or in order again ('')."""
        self._standing = Standing(self._info, outage)
        if self._on_standing is not None:
            self._on_standing(self._standing)
