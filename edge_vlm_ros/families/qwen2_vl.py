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
modeling_qwen2_vl.py); Qwen/Qwen2-VL-7B-Instruct, chat_template.json; QwenLM/Qwen2-VL,
qwen_vl_utils (pixels of videos).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby

import numpy as np

from edge_vlm_ros.core import (
    EngineLimits,
    Frame,
    ModelConfig,
    ModelFileError,
    Options,
    Positions,
    PromptPart,
    ShownAs,
    VisionInputs,
    VisionSpan,
    count,
    join_parts,
    text_part,
    unsupported,
)
from edge_vlm_ros.families.model_folder import normaliser_of, stop_tokens_of
from edge_vlm_ros.families.options import ResizeFilter
from edge_vlm_ros.families.templated import TemplatedFamily
from edge_vlm_ros.text import CHATML, Piece, Special, Tokenizer, encode_pieces
from edge_vlm_ros.vision import (
    Normaliser,
    Patching,
    cut_patches,
    resize_exact,
    resize_fast,
    smart_size,
)

VISION_START = Special('<|vision_start|>')
VISION_END = Special('<|vision_end|>')
IMAGE_PLACEHOLDER = '<|image_pad|>'
VIDEO_PLACEHOLDER = '<|video_pad|>'
SYSTEM_TEXT = 'You are a helpful assistant.'
"""Content of the models: their chat_template adds it where there is no system text."""

END_OF_TEXT = '<|endoftext|>'

CLIP_MIN_PIXELS = 128 * 28 * 28
CLIP_MAX_PIXELS = 768 * 28 * 28
"""Bounds of a video's frame. Source: QwenLM/Qwen2-VL, qwen_vl_utils."""

_CLIP_SHARE = 4
"""A frame of a clip has this part of the pixels of an image alone, so that four pairs (eight
frames) cost no more. Source: sophgo/LLM-TPU, models/Qwen2_VL, does the same."""

_TEXT_SHARE = 4
"""This part of the context is left to words."""

_RESIZERS = {'exact': resize_exact, 'fast': resize_fast}


@dataclass(frozen=True, slots=True)
class Qwen2VlOptions(Options):
    """What a user may choose; 0 = as the model's files and the engine say.

    Attributes:
        min_pixels: Smaller images are enlarged to this many pixels.
        max_pixels: Larger images are shrunk to this many pixels. Each 784 pixels cost a token of
            context.
        clip_pixels: As `max_pixels`, for each of several images and for each frame of a clip;
            0 = a quarter of what an image alone may have.
        resized_width: With `resized_height`, the size of every image, whatever its own; rounded to
            what the model takes; 0 = by its own size.
        resized_height: Likewise.
        resize: Which filter.

    Raises:
        BadRequestError: Only one side of the size is given.
    """

    min_pixels: int = count()
    max_pixels: int = count()
    clip_pixels: int = count()
    resized_width: int = count()
    resized_height: int = count()
    resize: ResizeFilter = 'exact'

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if (self.resized_width > 0) != (self.resized_height > 0):
            raise unsupported(
                f'resized_width and resized_height go together; '
                f'met {self.resized_width} and {self.resized_height}'
            )


OPTIONS = Qwen2VlOptions


@dataclass(frozen=True, slots=True)
class Qwen2VlSettings:
    """What one model's files and the options say.

    Attributes:
        tokenizer: The model's.
        options: The user's.
        alone: How an image that stands alone becomes patches.
        clip: The same for the frames of a clip; each of several images is shrunk like them.
        normalise: With the model's mean and deviation.
        image: Id of an image's placeholder.
        video: Id of a video's placeholder.
        stop_tokens: Ids that end an answer.
        fixed_size: Width and height of every image, pixels; (0, 0) = by its own size.
        clip_share: An image of several gets this part of the patches that the engine takes of one
            alone; 1 where the user said how many pixels it has.
        most_patches: Patches of one image that nothing may exceed; 0 = any number.
        longest_side: Of an image, pixels; 0 = any.
        pairs_per_input: Pairs of a clip that the vision tower takes at once.
    """

    tokenizer: Tokenizer = field(repr=False)
    options: Qwen2VlOptions
    alone: Patching
    clip: Patching
    normalise: Normaliser
    image: int
    video: int
    stop_tokens: frozenset[int]
    fixed_size: tuple[int, int] = (0, 0)
    clip_share: int = _CLIP_SHARE
    most_patches: int = 0
    longest_side: int = 0
    pairs_per_input: int = 1

    @property
    def several(self) -> Patching:
        """How each of several images becomes patches: shrunk more, enlarged no more than alone."""
        return _bounds(self.clip, self.alone.min_pixels, self.clip.max_pixels)

    def bound_by(self, limits: EngineLimits) -> Qwen2VlFamily:
        """Make the family, its images bounded by what the vision tower and the context take.

        A compiled vision tower takes `limits.max_patches`, or one grid only
        (`limits.patch_grid`: then every image is squashed to it). Of the context a quarter is
        left to words.

        Raises:
            ModelFileError: There is no room for even one block of patches.
        """
        unit = self.alone.merge**2
        prompt_tokens = min(limits.longest_prompt, limits.context_tokens)
        room = prompt_tokens - prompt_tokens // _TEXT_SHARE
        patches = min(room * unit, limits.max_patches or room * unit)
        rows, columns = limits.patch_grid
        side = self.alone.patch_px
        clip = _within(self.clip, max(patches // self.clip_share, unit))
        pairs = 1 if rows else limits.max_patches * side**2 // clip.max_pixels
        bounded = replace(
            self,
            alone=_within(self.alone, patches),
            clip=clip,
            pairs_per_input=max(pairs, 1),
            fixed_size=(columns * side, rows * side) if rows else self.fixed_size,
            most_patches=patches,
            longest_side=limits.max_grid_side * side,
        )
        return Qwen2VlFamily(bounded)

    def size(self, width_px: int, height_px: int, patching: Patching) -> tuple[int, int]:
        """Return the width and height that an image is resized to.

        Raises:
            BadImageError: A side of 0, or one over 200 times the other.
        """
        if self.fixed_size[0]:
            return smart_size(*self.fixed_size, _unbounded(patching))
        width, height = smart_size(width_px, height_px, patching)
        unit = patching.unit_px
        if self.longest_side:
            most = max(self.longest_side // unit, 1) * unit
            width, height = min(width, most), min(height, most)
        # The published rule may overshoot on very long images; a compiled net may not.
        units = (self.most_patches or width * height) // patching.merge**2
        if width * height > units * unit**2:
            short = min(width, height)
            longest = max(units * unit // short, 1) * unit
            width, height = min(width, longest), min(height, longest)
        return width, height


def read(config: ModelConfig, options: Qwen2VlOptions) -> Qwen2VlSettings:
    """Read what a model's files say; see `families.read_family`."""
    tokenizer = Tokenizer.load(config.folder)
    alone = _patching_of(config, options)
    most = options.clip_pixels or min(alone.max_pixels // _CLIP_SHARE, CLIP_MAX_PIXELS)
    encode_pieces(tokenizer, (VISION_START, VISION_END))  # both must be there
    return Qwen2VlSettings(
        tokenizer=tokenizer,
        options=options,
        alone=alone,
        clip=_bounds(alone, options.min_pixels or CLIP_MIN_PIXELS, most),
        normalise=normaliser_of(config.preprocessor),
        image=tokenizer.token_id(IMAGE_PLACEHOLDER),
        video=tokenizer.token_id(VIDEO_PLACEHOLDER),
        stop_tokens=stop_tokens_of(tokenizer, config, (*CHATML.stop, END_OF_TEXT)),
        fixed_size=(options.resized_width, options.resized_height),
        clip_share=1 if options.clip_pixels else _CLIP_SHARE,
    )


class Qwen2VlFamily(TemplatedFamily):
    """Preprocessing, prompt form, positions and stop rule of one Qwen2-VL model.

    Use from one thread at a time.

    Args:
        settings: Within what the engine takes.
    """

    def __init__(self, settings: Qwen2VlSettings) -> None:
        super().__init__(settings.tokenizer, CHATML, settings.stop_tokens, SYSTEM_TEXT)
        self.settings = settings
        self._resize = _RESIZERS[settings.options.resize]
        self._start, self._end = encode_pieces(settings.tokenizer, (VISION_START, VISION_END))

    @property
    def frames_per_input(self) -> int:
        """How many neighbouring frames of a clip make one input: 2, or all that fit at once."""
        return self.settings.clip.frames * self.settings.pairs_per_input

    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Resize, normalise and cut one image as the model was trained.

        Args:
            frame: Left unchanged.
            shown_as: AMONG_OTHERS it gets `settings.several`.

        Returns:
            pixels float32 (patches, 1176); grid (1, rows, columns) of patches.

        Raises:
            BadImageError: A side of 0, or one over 200 times the other.
        """
        settings = self.settings
        patching = settings.alone if shown_as is ShownAs.ALONE else settings.several
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
        inputs = self._input(frames, self.settings.clip)
        clip = source.camera or source.topic or 'clip'
        return replace(inputs, clip=clip, shown_as=ShownAs.VIDEO)

    def _input(self, frames: Sequence[Frame], patching: Patching) -> VisionInputs:
        height_px, width_px = frames[0].pixels.shape[:2]
        width, height = self.settings.size(width_px, height_px, patching)
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
            start = self._text([self._start], parts[-1].next_position)
            shown = self._video_part(video, first_image, start.next_position)
            end = self._text([self._end], shown.next_position)
            parts += [start, shown, end]
            first_image += len(video)
        return join_parts(parts)

    @staticmethod
    def _text(ids: Sequence[int], position: int) -> PromptPart:
        plain = text_part(ids, position)
        return replace(plain, positions=np.tile(plain.positions, (3, 1)))

    def _video_part(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        """Write the placeholders of an image, or of the pairs of a clip."""
        _, rows, columns = images[0].grid
        merge = self.settings.alone.merge
        pairs = sum(image.grid[0] for image in images)
        positions = _positions_of((pairs, rows // merge, columns // merge), position)
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


def _positions_of(grid: tuple[int, int, int], position: int) -> Positions:
    """Return the positions of a video's tokens: int64, (3, tokens); grid in tokens."""
    return np.indices(grid, np.int64).reshape(3, -1) + position


def _patching_of(config: ModelConfig, options: Qwen2VlOptions) -> Patching:
    """Read how images are cut; the preprocessor's file has their bounds in one of two forms."""
    preprocessor = config.preprocessor
    size = preprocessor.section('size')
    fewest = preprocessor.count('min_pixels', size.count('shortest_edge', 56 * 56))
    most = preprocessor.count('max_pixels', size.count('longest_edge', 1280 * 28 * 28))
    most = options.max_pixels or most
    return Patching(
        config.vision.count('patch_size', preprocessor.count('patch_size', 14)),
        config.vision.count('spatial_merge_size', 2),
        config.vision.count('temporal_patch_size', 2),
        min(options.min_pixels or fewest, most),
        most,
    )


def _bounds(patching: Patching, fewest: int, most: int) -> Patching:
    """Give a rule other bounds; the upper one counts, and there is room for a block."""
    most = max(most, patching.unit_px**2)
    return replace(patching, min_pixels=min(fewest, most), max_pixels=most)


def _within(patching: Patching, patches: int) -> Patching:
    """Bound the pixels of an image by a number of patches."""
    if patches < patching.merge**2:
        raise ModelFileError(f'no image fits into {patches} patches')
    most = min(patching.max_pixels, patches * patching.patch_px**2)
    return _bounds(patching, patching.min_pixels, most)


def _unbounded(patching: Patching) -> Patching:
    return _bounds(patching, 1, 2**62)
