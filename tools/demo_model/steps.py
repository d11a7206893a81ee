"""The kinds of step that train the language model and, in the end, the whole model.

A step draws a batch and returns its loss, and how many rows it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from tools.demo_model.losses import DenseHead, Sight, TrackHead, answer_loss, autocast
from tools.demo_model.model import DemoModel, LanguageModel
from tools.demo_model.packing import Batch
from tools.demo_model.size import ModelSize
from tools.demo_model.teach import Lessons

Step = Callable[[], tuple[Tensor, int]]

TRACK_WEIGHT: Final = 1.0
DENSE_WEIGHT: Final = 0.25  # of the dense loss beside the answers


class CodedSteps:
    """Steps of the language model alone, on scenes that no renderer has to show."""

    def __init__(self, model: LanguageModel, tracker: TrackHead, lessons: Lessons) -> None:
        self._model, self._tracker, self._lessons = model, tracker, lessons
        self._width = ModelSize().width
        self._sight = Sight(self._width)

    def text(self, rows: int) -> tuple[Tensor, int]:
        """Questions without a frame."""
        image = torch.zeros(rows, 0, self._width)
        with autocast():
            return answer_loss(self._model, self._lessons.text_only(rows), image), rows

    def stills(self, count: int) -> tuple[Tensor, int]:
        """True scenes."""
        batch, code = self._lessons.coded_stills(count)
        with autocast():
            return answer_loss(self._model, batch, self._sight.tokens(code)), count

    def clips(self, count: int) -> tuple[Tensor, int]:
        """True clips."""
        batch, code, tracks = self._lessons.coded_clips(count)
        return self.with_tracks(batch, self._sight.tokens(code), tracks), count

    def with_tracks(self, batch: Batch, tokens: Tensor, tracks: Tensor) -> Tensor:
        """Return the loss of answers about clips, whose motion is to be found out early on."""
        watched: list[Tensor] = []
        with autocast():
            answers = answer_loss(self._model, batch, tokens, watched)
        return answers + TRACK_WEIGHT * self._tracker.loss(watched, tracks)


class JointSteps:
    """The steps of the joint stage.

    Attributes:
        model: The whole model.
        head: The vision tower's helper.
        tracker: The language model's helper.
        kinds: The steps by name.
    """

    def __init__(self, lessons: Lessons) -> None:
        size = ModelSize()
        self.model = DemoModel(size)
        self.head, self.tracker = DenseHead(size.vision_width), TrackHead(size.width)
        self._lessons, self._sight = lessons, Sight(size.width)
        self._coded = CodedSteps(self.model.language_model, self.tracker, lessons)
        self.kinds: Mapping[str, Step] = {
            'text': lambda: self._coded.text(8),
            'stills': lambda: self._stills(32),
            'clips': lambda: self._clips(11),
            'coded_stills': lambda: self._coded.stills(40),
            'coded_clips': lambda: self._coded.clips(16),
        }

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is trained and saved."""
        return {'model': self.model, 'head': self.head, 'tracker': self.tracker}

    def _stills(self, frames: int) -> tuple[Tensor, int]:
        """Rendered frames, everything trained."""
        batch, pixels, pictures = self._lessons.seen_stills(frames, frames)
        with autocast():
            patches, tokens = self.model.see(pixels)
            answers = answer_loss(self.model.language_model, batch, tokens)
        dense = self._sight.loss(self.head, patches, tokens, pictures)
        return answers + DENSE_WEIGHT * dense, frames

    def _clips(self, count: int) -> tuple[Tensor, int]:
        """Rendered clips; the vision tower is not trained on them."""
        batch, pixels, tracks = self._lessons.seen_clips(count)
        with autocast(), torch.no_grad():
            tokens = self.model.see(pixels)[1].reshape(count, -1, self.model.size.width)
        return self._coded.with_tracks(batch, tokens, tracks), count
