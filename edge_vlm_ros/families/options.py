"""What may be chosen about a family's preprocessing, beside what the model's files say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from edge_vlm_ros.core import BadRequestError, ErrorCode

ResizeFilter: TypeAlias = Literal['exact', 'fast']
"""'exact': the filter that the model was trained with, bit for bit. 'fast': far cheaper; of camera
frames squashed or tiled to 112 px, each channel is at most 1.5/255 off on average (a test holds
it); for other images see `vision.resize.FAST_MEAN_DIFFERENCE`."""

_COUNTS = (
    'max_tiles',
    'min_pixels',
    'max_pixels',
    'clip_pixels',
    'resized_width',
    'resized_height',
)


@dataclass(frozen=True, slots=True)
class FamilyOptions:
    """How frames are made into pixels.

    Attributes:
        max_tiles: Most tiles that one frame is cut into, for families that tile; 0 = as the
            model's files say. Every tile costs a run of the vision tower and its share of context.
        min_pixels: Smaller images are enlarged to this many pixels, for families that take images
            of any size; 0 = as the model's files say.
        max_pixels: Larger images are shrunk to this many pixels, for the same families; 0 = as the
            model's files and the engine say. Each 784 pixels cost a token of context.
        clip_pixels: As `max_pixels`, for each of several images and for each frame of a clip;
            0 = a quarter of what an image alone may have.
        resized_width: With `resized_height`, the size of every image, whatever its own, for the
            same families; rounded to what the model takes; 0 = by its own size.
        resized_height: Likewise.
        resize: Which filter.

    Raises:
        BadRequestError: What none of them can be.
    """

    max_tiles: int = 0
    min_pixels: int = 0
    max_pixels: int = 0
    clip_pixels: int = 0
    resized_width: int = 0
    resized_height: int = 0
    resize: ResizeFilter = 'exact'

    def __post_init__(self) -> None:
        # Options come from parameters, unchecked.
        for name in _COUNTS:
            count = getattr(self, name)
            if not isinstance(count, int) or count < 0:
                raise BadRequestError(
                    f'{name} is a whole number, 0 or more, not {count!r}',
                    ErrorCode.UNSUPPORTED_OPTION,
                )
        if (self.resized_width > 0) != (self.resized_height > 0):
            raise BadRequestError(
                f'resized_width and resized_height go together; '
                f'met {self.resized_width} and {self.resized_height}',
                ErrorCode.UNSUPPORTED_OPTION,
            )
        if self.resize not in get_args(ResizeFilter):
            filters = ' or '.join(get_args(ResizeFilter))
            raise BadRequestError(
                f'resize is {filters}, not {self.resize!r}', ErrorCode.UNSUPPORTED_OPTION
            )
