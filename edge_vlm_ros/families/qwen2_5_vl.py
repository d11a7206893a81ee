"""Qwen2.5-VL: Qwen2-VL's pixels and words, and videos that tell the model how fast time goes.

Pixels, chat template, placeholders and the positions of an image are those of `qwen2_vl`. The
windows in which its vision tower attends are the engine's business.

Time: where Qwen2-VL counts the pairs of a clip, 0, 1, 2, ..., here a pair that was taken s seconds
after the clip's first one stands at floor(s * tokens_per_second). The published processor takes s
to be the same from pair to pair, by the rate at which it sampled a file; a camera's frames have
stamps, so s is what they say, and equal to the published rule where the rate is even. So that a
stamp a little early does not cost a position, a twentieth of one is added before rounding down.

    between two pairs               counts as
    stamps that do not grow         one second, the published default
    more positions than a pair has  as many as it has tokens: so positions never run ahead of
      tokens                        tokens, and a prompt that fits has a rotation for each

What a pair's place is depends on it and on those before it alone: a clip grows at its end.

Source: huggingface/transformers, models/qwen2_5_vl (processing_qwen2_5_vl.py, get_rope_index in
modeling_qwen2_5_vl.py); Qwen/Qwen2.5-VL-3B-Instruct, config.json (`tokens_per_second`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import EngineLimits, ModelConfig, VisionInputs
from edge_vlm_ros.families import qwen2_vl
from edge_vlm_ros.families.grounding import Grounding
from edge_vlm_ros.families.qwen2_vl import Qwen2VlFamily, Qwen2VlSettings
from edge_vlm_ros.families.qwen2_vl_sizes import Qwen2VlOptions
from edge_vlm_ros.text import PlaceForm

OPTIONS = Qwen2VlOptions

_TOKENS_PER_SECOND = 4
"""Where config.json has none. Source: transformers, configuration_qwen2_5_vl.py."""

_SECOND_NS = 1_000_000_000
_EARLY_NS = _SECOND_NS // 20  # in positions, not seconds: it is added to s * tokens_per_second


@dataclass(frozen=True, slots=True)
class Qwen25VlSettings:
    """What one model's files and the options say.

    Attributes:
        images: What Qwen2-VL's say, too.
        tokens_per_second: Positions for each second of a video.
    """

    images: Qwen2VlSettings
    tokens_per_second: int

    def bound_by(self, limits: EngineLimits) -> Qwen25VlFamily:
        """Make the family, its images bounded by what the vision tower and the context take.

        Raises:
            ModelFileError: There is no room for even one block of patches.
        """
        return Qwen25VlFamily(self.images.within(limits), self.tokens_per_second)


def read(config: ModelConfig, options: Qwen2VlOptions) -> Qwen25VlSettings:
    """Read what a model's files say; see `families.read_family`."""
    rate = config.vision.count('tokens_per_second', _TOKENS_PER_SECOND)
    return Qwen25VlSettings(qwen2_vl.read(config, options), rate)


class Qwen25VlFamily(Qwen2VlFamily):
    """Preprocessing, prompt form, positions and stop rule of one Qwen2.5-VL model.

    Use from one thread at a time.

    Args:
        settings: Within what the engine takes.
        tokens_per_second: Positions for each second of a video.
    """

    def __init__(self, settings: Qwen2VlSettings, tokens_per_second: int) -> None:
        super().__init__(settings)
        self._tokens_per_second = tokens_per_second

    @property
    def grounding(self) -> Grounding:
        """How its models name places: pixels of the frame as it was shown, as JSON."""
        return Grounding(PlaceForm.JSON, patch_px=self.settings.sizes.alone.patch_px)

    def _moments(self, images: Sequence[VisionInputs]) -> NDArray[np.int64]:
        """Say where the pairs of a clip stand in time, from 0: by their frames' stamps."""
        first = images[0]
        tokens, frames = first.tokens // first.grid[0], self.settings.sizes.clip.frames
        gaps = np.diff(_taken_ns(images, frames))
        gaps[gaps <= 0] = _SECOND_NS
        longest = tokens * _SECOND_NS // self._tokens_per_second
        since = np.concatenate([[0], np.minimum(gaps, longest).cumsum()])
        return (since * self._tokens_per_second + _EARLY_NS) // _SECOND_NS


def _taken_ns(images: Sequence[VisionInputs], frames: int) -> NDArray[np.int64]:
    """Return when each pair's first frame was taken; 0 where it is not known."""
    taken = [
        image.stamps_ns[pair * frames] if image.stamps_ns else 0
        for image in images
        for pair in range(image.grid[0])
    ]
    return np.array(taken, np.int64)
