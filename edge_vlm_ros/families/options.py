"""What may be chosen about a family's preprocessing, beside what the model's files say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from edge_vlm_ros.core import BadRequestError, ErrorCode

ResizeFilter: TypeAlias = Literal['exact', 'fast']
"""'exact': the filter that the model was trained with, bit for bit. 'fast': far cheaper; of camera
frames squashed or tiled to 112 px, each channel is at most 1.5/255 off on average (a test holds
it); for other images see `vision.resize.FAST_MEAN_DIFFERENCE`."""


@dataclass(frozen=True, slots=True)
class FamilyOptions:
    """How frames are made into pixels.

    Attributes:
        max_tiles: Most tiles that one frame is cut into, for families that tile; 0 = as the
            model's files say. Every tile costs a run of the vision tower and its share of context.
        resize: Which filter.

    Raises:
        BadRequestError: Neither.
    """

    max_tiles: int = 0
    resize: ResizeFilter = 'exact'

    def __post_init__(self) -> None:
        # Options come from parameters, unchecked.
        is_whole = isinstance(self.max_tiles, int)
        if not is_whole or self.max_tiles < 0:
            raise BadRequestError(
                f'max_tiles is a whole number, 0 or more, not {self.max_tiles!r}',
                ErrorCode.UNSUPPORTED_OPTION,
            )
        if self.resize not in get_args(ResizeFilter):
            filters = ' or '.join(get_args(ResizeFilter))
            raise BadRequestError(
                f'resize is {filters}, not {self.resize!r}', ErrorCode.UNSUPPORTED_OPTION
            )
