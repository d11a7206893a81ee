"""Qwen2-VL: patches of any grid, ChatML, features spliced in, positions on three axes (M-RoPE).

An image stands in the prompt as `<|vision_start|>`, one `<|image_pad|>` for each block of 2 by 2
patches, `<|vision_end|>`; nothing is between images, and they come before the question.

A clip of one camera is a video: neighbouring frames are shown to the vision tower in pairs, and
all pairs of the clip stand between one `<|vision_start|>` and one `<|vision_end|>`, with
`<|video_pad|>`. A last frame without a partner is paired with itself. The vision tower looks at
each pair on its own. A compiled one costs the same however full it is, so one `VisionInputs` holds
as many pairs as fit into one launch (`frames_per_input`); a longer clip is several of them, each
with a span of its own, and still one video.

What an engine gets (`VisionInputs`): `pixels` (patches, 1176) and `grid` (pairs, rows, columns),
pairs being 1 for an image, with patches = pairs * rows * columns: pair by pair, each in the order
of `vision.patches.patch_places`, which also gives the positions inside the vision tower; `tokens`
= patches / 4 feature rows, in the order of the blocks. Patches attend to those of their own pair
only. A compiled vision tower of N patches gets the rest padded and masked, by the engine.

Positions: a text token stands at (p, p, p), and p grows by one. The tokens of an image that begins
at p stand at (p + pair, p + block row, p + block column); the next text stands one past the
largest of these. So `next_position` is what the first answer token gets, on all three axes.

Source: huggingface/transformers, models/qwen2_vl (processing_qwen2_vl.py, get_rope_index in
modeling_qwen2_vl.py); Qwen/Qwen2-VL-7B-Instruct, chat_template.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    EngineLimits,
    Frame,
    ModelConfig,
    ModelFileError,
    Positions,
    PromptPart,
    ShownAs,
    VisionInputs,
    VisionSpan,
    join_parts,
    text_part,
)
from edge_vlm_ros.families.grounding import Grounding
from edge_vlm_ros.families.model_folder import normaliser_of, stop_tokens_of
from edge_vlm_ros.families.qwen2_vl_sizes import PatchSizes, Qwen2VlOptions
from edge_vlm_ros.families.templated import TemplatedFamily
from edge_vlm_ros.text import CHATML, Piece, PlaceForm, Special, Tokenizer, encode_pieces
from edge_vlm_ros.vision import (
    Normaliser,
    Patching,
    cut_patches,
    resize_exact,
    resize_fast,
)

VISION_START = Special('<|vision_start|>')
VISION_END = Special('<|vision_end|>')
IMAGE_PLACEHOLDER = '<|image_pad|>'
VIDEO_PLACEHOLDER = '<|video_pad|>'
SYSTEM_TEXT = 'You are a helpful assistant.'
"""Content of the models: their chat_template adds it where there is no system text."""

END_OF_TEXT = '<|endoftext|>'

_RESIZERS = {'exact': resize_exact, 'fast': resize_fast}


OPTIONS = Qwen2VlOptions


@dataclass(frozen=True, slots=True)
class Qwen2VlSettings:
    """What one model's files and the options say.

    Attributes:
        tokenizer: The model's.
        options: The user's.
        sizes: How large images are made.
        normalise: With the model's mean and deviation.
        image: Id of an image's placeholder.
        video: Id of a video's placeholder.
        stop_tokens: Ids that end an answer.
    """

    tokenizer: Tokenizer = field(repr=False)
    options: Qwen2VlOptions
    sizes: PatchSizes
    normalise: Normaliser
    image: int
    video: int
    stop_tokens: frozenset[int]

    def bound_by(self, limits: EngineLimits) -> Qwen2VlFamily:
        """Make the family, its images bounded by what the vision tower and the context take.

        Raises:
            ModelFileError: There is no room for even one block of patches, or the vision tower is
                another model's.
        """
        return Qwen2VlFamily(self.within(limits))

    def within(self, limits: EngineLimits, deepstack_layers: int = 0) -> Qwen2VlSettings:
        """Bound the images; see `bound_by`.

        Args:
            limits: The engine's.
            deepstack_layers: That the model's files speak of. An engine that knows of none of its
                own, since it has no weights, takes any.
        """
        if limits.deepstack_layers not in {0, deepstack_layers}:
            raise ModelFileError(
                f'config.json says features for {deepstack_layers} layers beside those in the '
                f'prompt, the vision tower has some for {limits.deepstack_layers}: these files '
                f'are not of one model'
            )
        return replace(self, sizes=self.sizes.bound_by(limits))


def read(config: ModelConfig, options: Qwen2VlOptions) -> Qwen2VlSettings:
    """Read what a model's files say; see `families.read_family`."""
    tokenizer = Tokenizer.load(config.folder)
    encode_pieces(tokenizer, (VISION_START, VISION_END))  # both must be there
    return Qwen2VlSettings(
        tokenizer=tokenizer,
        options=options,
        sizes=PatchSizes.read(config, options),
        normalise=normaliser_of(config.preprocessor),
        image=tokenizer.token_id(IMAGE_PLACEHOLDER),
        video=tokenizer.token_id(VIDEO_PLACEHOLDER),
        stop_tokens=stop_tokens_of(tokenizer, config, (*CHATML.stop, END_OF_TEXT)),
    )


class Qwen2VlFamily(TemplatedFamily):
    """Preprocessing, prompt form, positions and stop rule of one Qwen2-VL model.

    Its successors differ in how they show a video (`_shown`) and where its moments stand in time
    (`_moments`). Use from one thread at a time.

    Args:
        settings: Within what the engine takes.
        system_text: Where the question brings none.
    """

    def __init__(self, settings: Qwen2VlSettings, system_text: str = SYSTEM_TEXT) -> None:
        super().__init__(settings.tokenizer, CHATML, settings.stop_tokens, system_text)
        self.settings = settings
        self._resize = _RESIZERS[settings.options.resize]
        self._start, self._end = encode_pieces(settings.tokenizer, (VISION_START, VISION_END))

    @property
    def grounding(self) -> Grounding:
        """How its models name places: thousandths of the frame, between template tokens."""
        return Grounding(PlaceForm.OBJECT_REF)

    @property
    def frames_per_input(self) -> int:
        """How many neighbouring frames of a clip make one input: 2, or all that fit at once."""
        return self.settings.sizes.clip.frames * self.settings.sizes.pairs_per_input

    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Resize, normalise and cut one image as the model was trained.

        Args:
            frame: Left unchanged.
            shown_as: AMONG_OTHERS it gets `settings.sizes.several`.

        Returns:
            pixels float32 (patches, 1176); grid (1, rows, columns) of patches.

        Raises:
            BadImageError: A side of 0, or one over 200 times the other.
        """
        sizes = self.settings.sizes
        patching = sizes.alone if shown_as is ShownAs.ALONE else sizes.several
        return replace(self._input([frame], patching), shown_as=shown_as)

    def preprocess_clip(self, frames: Sequence[Frame]) -> VisionInputs:
        """Make one input of neighbouring frames of a clip.

        Args:
            frames: Of one camera, oldest first; at most `frames_per_input`. Left unchanged.

        Returns:
            pixels float32 (patches, 1176); grid (pairs, rows, columns) of patches; all frames have
            the size that the first one's asks for.

        Raises:
            BadImageError: A side of 0, or one over 200 times the other.
        """
        source = frames[0].source
        inputs = self._input(frames, self.settings.sizes.clip)
        clip = source.camera or source.topic or 'clip'
        stamps_ns = tuple(frame.stamp_ns for frame in frames)
        return replace(inputs, clip=clip, shown_as=ShownAs.VIDEO, stamps_ns=stamps_ns)

    def _input(self, frames: Sequence[Frame], patching: Patching) -> VisionInputs:
        height_px, width_px = frames[0].pixels.shape[:2]
        width, height = self.settings.sizes.size(width_px, height_px, patching)
        resized = [self._resize(frame.pixels, width, height) for frame in frames]
        normalise, step = self.settings.normalise, patching.frames
        pairs = [
            cut_patches(resized[start : start + step], patching, normalise)
            for start in range(0, len(resized), step)
        ]
        pixels = pairs[0] if len(pairs) == 1 else np.concatenate(pairs)
        grid = (len(pairs), height // patching.patch_px, width // patching.patch_px)
        tokens = len(pixels) // patching.merge**2
        return VisionInputs(pixels, grid, tokens, images=len(pairs))

    def _render(
        self,
        pieces: Sequence[Piece],
        images: Sequence[VisionInputs],
        *,
        first_image: int,
        position: int,
    ) -> PromptPart:
        """Render pieces, then images; neighbours of one clip as one video."""
        parts = [self._text(encode_pieces(self._tokenizer, pieces), position)]
        for video in _videos(images):
            parts += self._shown(video, first_image, parts[-1].next_position)
            first_image += len(video)
        return join_parts(parts)

    def _shown(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> list[PromptPart]:
        """Write an image, or all of a clip, between the tokens that begin and end a picture."""
        start = self._text([self._start], position)
        shown = self._video_part(images, first_image, start.next_position)
        return [start, shown, self._text([self._end], shown.next_position)]

    def _moments(self, images: Sequence[VisionInputs]) -> NDArray[np.int64]:
        """Say where the pairs of a clip stand in time, from 0: one after the other."""
        return np.arange(sum(image.grid[0] for image in images))

    @staticmethod
    def _text(ids: Sequence[int], position: int) -> PromptPart:
        plain = text_part(ids, position)
        return replace(plain, positions=np.tile(plain.positions, (3, 1)))

    def _video_part(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        """Write the placeholders of an image, or of the pairs of a clip."""
        _, rows, columns = images[0].grid
        merge = self.settings.sizes.alone.merge
        moments = self._moments(images)
        positions = _positions_of(moments, rows // merge, columns // merge) + position
        placeholder = self.settings.video if images[0].clip else self.settings.image
        stops = list(accumulate(image.tokens for image in images))
        spans = tuple(
            VisionSpan(first_image + number, stop - image.tokens, stop)
            for number, (image, stop) in enumerate(zip(images, stops, strict=True))
        )
        return PromptPart(
            tokens=np.full(positions.shape[1], placeholder, np.int64),
            positions=positions,
            next_position=int(positions.max()) + 1,
            spans=spans,
        )


def _videos(images: Sequence[VisionInputs]) -> list[list[VisionInputs]]:
    """Group neighbours of one clip and grid; every other image is by itself."""

    def name(place: int) -> object:
        image = images[place]
        return (image.clip, image.grid[1:]) if image.clip else place

    return [[images[i] for i in group] for _, group in groupby(range(len(images)), name)]


def _positions_of(moments: NDArray[np.int64], rows: int, columns: int) -> Positions:
    """Return the positions of a video's tokens, from 0: int64, (3, tokens); sides in tokens."""
    places = np.indices((len(moments), rows, columns), np.int64).reshape(3, -1)
    places[0] = moments[places[0]]
    return places
