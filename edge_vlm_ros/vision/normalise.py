"""8-bit pixels to float32, channels first, mean and deviation removed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadRequestError

if TYPE_CHECKING:
    from edge_vlm_ros.core import RgbImage

_LEVELS = 256


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Normalise with one family's mean and standard deviation.

    The 256 results of each channel are computed once, as the reference computes them, and looked
    up after that: one pass, bit-equal to dividing by 255, subtracting and dividing in float32.

    Args:
        mean: Of red, green, blue, in [0, 1]; from the model's preprocessor_config.json.
        std: Likewise; above 0.

    Raises:
        BadRequestError: `mean` or `std` is not three numbers, or a deviation is not above 0.

    Source: torchvision ToTensor and Normalize, the model cards' own transform.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    tables: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.std)} != {3} or not all(0 < std < 1e6 for std in self.std):
            raise BadRequestError(
                f'mean and std are three numbers each, std above 0; met {self.mean} and {self.std}'
            )
        unit = np.arange(_LEVELS, dtype=np.float32) / np.float32(255)
        tables = np.stack(
            [
                (unit - np.float32(mean)) / np.float32(std)
                for mean, std in zip(self.mean, self.std, strict=True)
            ]
        )
        object.__setattr__(self, 'tables', tables)

    def __call__(
        self, image: RgbImage, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalise one image.

        Args:
            image: uint8, (H, W, 3), RGB; left unchanged.
            out: Where to write, float32, (3, H, W), C-contiguous; None = a new array.

        Returns:
            float32, (3, H, W); `out` where given.
        """
        height, width = image.shape[:2]
        if out is None:
            out = np.empty((3, height, width), np.float32)
        assert out.shape == (3, height, width), (out.shape, image.shape)
        assert out.dtype == np.float32, out.dtype
        assert out.flags.c_contiguous
        for channel, plane in enumerate(cv2.split(image)):
            cv2.LUT(plane, self.tables[channel], dst=out[channel])
        return out
