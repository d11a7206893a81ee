"""How large Qwen2-VL makes its images: the model's bounds, the user's and the engine's.

Source: huggingface/transformers, models/qwen2_vl (image_processing_qwen2_vl.py); QwenLM/Qwen2-VL,
qwen_vl_utils (pixels of videos).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_vlm_ros.core import (
    EngineLimits,
    ModelConfig,
    ModelFileError,
    Options,
    count,
    unsupported,
)
from edge_vlm_ros.families.options import ResizeFilter
from edge_vlm_ros.vision import Patching, smart_size

CLIP_MIN_TOKENS = 128
CLIP_MAX_TOKENS = 768
"""Bounds of a video's frame. Source: QwenLM/Qwen2-VL and Qwen3-VL, qwen_vl_utils."""

CLIP_SHARE = 4
"""A frame of a clip has this part of the pixels of an image alone, so that four pairs (eight
frames) cost no more. Source: sophgo/LLM-TPU, models/Qwen2_VL, does the same."""

_TEXT_SHARE = 4
"""This part of the context is left to words."""


@dataclass(frozen=True, slots=True)
class Qwen2VlOptions(Options):
    """What a user may choose; 0 = as the model's files and the engine say.

    Attributes:
        min_pixels: Smaller images are enlarged to this many pixels.
        max_pixels: Larger images are shrunk to this many pixels. Each 784 pixels (1024 with
            Qwen3-VL) cost a token of context.
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


@dataclass(frozen=True, slots=True)
class PatchSizes:
    """How large an image becomes, by how it is shown.

    Attributes:
        alone: How an image that stands alone becomes patches.
        clip: The same for the frames of a clip; each of several images is shrunk like them.
        fixed_size: Width and height of every image, pixels; (0, 0) = by its own size.
        asked_pixels: What the user said that an image alone may or must have; 0 = nothing.
        clip_share: An image of several gets this part of the patches that the engine takes of one
            alone; 1 where the user said how many pixels it has.
        most_patches: Patches of one image that nothing may exceed; 0 = any number.
        longest_side: Of an image, pixels; 0 = any.
        pairs_per_input: Pairs of a clip that the vision tower takes at once.
    """

    alone: Patching
    clip: Patching
    fixed_size: tuple[int, int] = (0, 0)
    asked_pixels: int = 0
    clip_share: int = CLIP_SHARE
    most_patches: int = 0
    longest_side: int = 0
    pairs_per_input: int = 1

    @classmethod
    def read(cls, config: ModelConfig, options: Qwen2VlOptions) -> PatchSizes:
        """Read what a model's files say, with what the user asked for in place of it.

        Raises:
            ModelFileError: Something else than numbers stands in a file.
            BadRequestError: No image size is within the bounds.
        """
        alone = _patching_of(config, options)
        token_pixels = alone.unit_px**2
        bound = min(alone.max_pixels // CLIP_SHARE, CLIP_MAX_TOKENS * token_pixels)
        fewest = options.min_pixels or CLIP_MIN_TOKENS * token_pixels
        return cls(
            alone=alone,
            clip=_bounds(alone, fewest, options.clip_pixels or bound),
            fixed_size=(options.resized_width, options.resized_height),
            asked_pixels=max(options.min_pixels, options.max_pixels),
            clip_share=1 if options.clip_pixels else CLIP_SHARE,
        )

    @property
    def several(self) -> Patching:
        """How each of several images becomes patches: shrunk more, enlarged no more than alone."""
        return _bounds(self.clip, self.alone.min_pixels, self.clip.max_pixels)

    def bound_by(self, limits: EngineLimits) -> PatchSizes:
        """Bound images by what the vision tower and the context take.

        A compiled vision tower takes `limits.max_patches`, or one grid only
        (`limits.patch_grid`: then every image is squashed to it). Of the context a quarter is
        left to words. `limits.patches_per_frame` bounds those whose size the user left open.

        Raises:
            ModelFileError: The vision tower takes tiles, or there is no room for even one block of
                patches.
        """
        if limits.tile_px:
            raise ModelFileError(
                f'config.json says patches in a grid of any size, the vision tower takes tiles of '
                f'{limits.tile_px} px: these files are not of one model'
            )
        unit = self.alone.merge**2
        prompt_tokens = min(limits.longest_prompt, limits.context_tokens)
        room = prompt_tokens - prompt_tokens // _TEXT_SHARE
        patches = min(room * unit, limits.max_patches or room * unit)
        rows, columns = limits.patch_grid
        side = self.alone.patch_px
        usual = self._usual(limits.patches_per_frame, patches)
        clip_patches = (usual if self.clip_share > 1 else patches) // self.clip_share
        clip = _within(self.clip, max(clip_patches, unit))
        pairs = 1 if rows else limits.max_patches * side**2 // clip.max_pixels
        return replace(
            self,
            alone=_within(self.alone, usual),
            clip=clip,
            pairs_per_input=max(pairs, 1),
            fixed_size=(columns * side, rows * side) if rows else self.fixed_size,
            most_patches=patches,
            longest_side=limits.max_grid_side * side,
        )

    def _usual(self, bearable: int, most: int) -> int:
        """Return the patches of an image alone: as many as asked for, or bearable."""
        asked = self.asked_pixels // self.alone.patch_px**2
        return min(max(bearable, asked), most) if bearable else most

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
