"""Qwen3-VL: Qwen2-VL's words and places with patches of 16 px, and videos told by time stamps.

Chat template, placeholders and the positions of an image are those of `qwen2_vl`, but no system
text stands where the question brings none. An image goes to multiples of 32 px.

A clip of one camera is a video: each pair of neighbouring frames stands by itself, between a
`<|vision_start|>` and a `<|vision_end|>` of its own, with `<|video_pad|>`, and before it the time
at which it was taken: `<0.5 seconds>`, counted from the clip's first frame, half way between the
pair's two. So a position says where in a picture, and the words say when. A last frame without a
partner is paired with itself. One `VisionInputs` holds one pair (`frames_per_input` 2), for words
stand between two of them. Stamps that do not grow, or that nobody knows, count as one second.
What is written before a pair depends on it and on those before it alone: a clip grows at its end.

What an engine gets (`VisionInputs`): `pixels` (patches, 1536), `grid` (1, rows, columns) and
`tokens` as Qwen2-VL's, and `table_side`: the vision tower has position embeddings for a square of
so many places, which it stretches over the image (`vision.patches.table_places`). It answers with
features for the prompt and others for the first decoder layers (`Spliced.deepstack`).

Positions: as Qwen2-VL's of an image, for a pair too; the decoder takes the three axes in turns
(interleaved M-RoPE), which is inside its layers.

Source: huggingface/transformers, models/qwen3_vl (processing_qwen3_vl.py, get_rope_index in
modeling_qwen3_vl.py); Qwen/Qwen3-VL-4B-Instruct, chat_template.json, config.json. Of a video, the
form is that of transformers 4.57, which published the model, and of both chip vendors' programs:
transformers 5 leaves the template's own marks around the whole clip besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt

from edge_vlm_ros.core import EngineLimits, Frame, ModelConfig, PromptPart, VisionInputs
from edge_vlm_ros.families import qwen2_vl
from edge_vlm_ros.families.grounding import Grounding
from edge_vlm_ros.families.qwen2_vl import Qwen2VlFamily, Qwen2VlSettings
from edge_vlm_ros.families.qwen2_vl_sizes import Qwen2VlOptions
from edge_vlm_ros.text import PlaceForm, encode_pieces
from edge_vlm_ros.vision import Patching

OPTIONS = Qwen2VlOptions

_PLACES = 48 * 48
"""Position embeddings, where config.json has none. Source: configuration_qwen3_vl.py."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Qwen3VlSettings:
    """What one model's files and the options say.

    Attributes:
        images: What Qwen2-VL's say, too.
        table_side: See `VisionInputs.table_side`.
        deepstack_layers: See `EngineLimits.deepstack_layers`.
    """

    images: Qwen2VlSettings
    table_side: int
    deepstack_layers: int

    def bound_by(self, limits: EngineLimits) -> Qwen3VlFamily:
        """Make the family, its images bounded by what the vision tower and the context take.

        Raises:
            ModelFileError: There is no room for even one block of patches, or the vision tower is
                another model's.
        """
        images = self.images.within(limits, self.deepstack_layers)
        return Qwen3VlFamily(images, self.table_side)


def read(config: ModelConfig, options: Qwen2VlOptions) -> Qwen3VlSettings:
    """Read what a model's files say; see `families.read_family`."""
    places = config.vision.count('num_position_embeddings', _PLACES)
    side = isqrt(places)
    if side < 1 or side**2 != places:
        raise config.vision.error('num_position_embeddings', 'a square number above 0')
    return Qwen3VlSettings(qwen2_vl.read(config, options), side, config.deepstack_layers)


class Qwen3VlFamily(Qwen2VlFamily):
    """Preprocessing, prompt form, positions and stop rule of one Qwen3-VL model.

    Use from one thread at a time.

    Args:
        settings: Within what the engine takes.
        table_side: See `VisionInputs.table_side`.
    """

    def __init__(self, settings: Qwen2VlSettings, table_side: int) -> None:
        super().__init__(settings, system_text='')
        self._table_side = table_side

    @property
    def grounding(self) -> Grounding:
        """How its models name places: thousandths of the frame, as JSON."""
        return Grounding(PlaceForm.JSON)

    @property
    def frames_per_input(self) -> int:
        """How many neighbouring frames of a clip make one input: a pair."""
        return self.settings.sizes.clip.frames

    def _input(self, frames: Sequence[Frame], patching: Patching) -> VisionInputs:
        return replace(super()._input(frames, patching), table_side=self._table_side)

    def _shown(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> list[PromptPart]:
        """Write an image, or each pair of a clip after the time at which it was taken."""
        if not images[0].clip:
            return super()._shown(images, first_image, position)
        parts: list[PromptPart] = []
        for number, (image, taken_s) in enumerate(zip(images, _seconds(images), strict=True)):
            stamp = encode_pieces(self._tokenizer, (f'<{taken_s:.1f} seconds>',))
            parts.append(self._text(stamp, position))
            parts += super()._shown([image], first_image + number, parts[-1].next_position)
            position = parts[-1].next_position
        return parts


def _seconds(pairs: Sequence[VisionInputs]) -> list[float]:
    """Say when each pair of a clip was taken, counted from its first frame."""
    start_ns = pairs[0].stamps_ns[0] if pairs[0].stamps_ns else 0
    taken: list[float] = []
    for pair in pairs:
        ends = (pair.stamps_ns[0], pair.stamps_ns[-1]) if pair.stamps_ns else (start_ns, start_ns)
        middle = (sum(ends) / 2 - start_ns) / _SECOND_NS
        if taken and middle <= taken[-1]:
            middle = taken[-1] + 1
        taken.append(middle)
    return taken
