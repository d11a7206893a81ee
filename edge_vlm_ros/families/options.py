"""What the options of several families have in common."""

from __future__ import annotations

from typing import Literal, TypeAlias

ResizeFilter: TypeAlias = Literal['exact', 'fast']
"""'exact': the filter that the model was trained with, bit for bit. 'fast': far cheaper; of camera
frames squashed or tiled to 112 px, each channel is at most 1.5/255 off on average (a test holds
it); for other images see `vision.resize.FAST_MEAN_DIFFERENCE`."""
