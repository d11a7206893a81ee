"""Whether there is light in a picture: from the samples of a look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge_vlm_ros.vision.change import Thumbnail

DARK = 24
"""Of 255. A picture is dark when not one sample in fifty is brighter. A covered lens gives the
sensor's black level and noise, below 20 of 255; a lamp in a night scene is far brighter."""

BRIGHT_SHARE = 0.02

_LUMA = {
    'nv12': (0,),
    'nv21': (0,),
    'uyvy': (1, 3),
    'yuv422': (1, 3),
    'yuv422_yuy2': (0, 2),
    'yuyv': (0, 2),
}
"""Which channels of a look are brightness, where the others are colour: 128 means none there.
Source: sensor_msgs/image_encodings.hpp."""


def is_dark(look: Thumbnail) -> bool:
    """Return whether a picture shows nothing for want of light.

    Args:
        look: At it; see `vision.thumbnail`.
    """
    samples = look.samples
    channels = _LUMA.get(str(look.form[0]))
    light = samples[..., list(channels)] if channels else samples
    bright = np.count_nonzero(light.max(axis=-1) > DARK)
    return bool(bright <= BRIGHT_SHARE * light.shape[0] * light.shape[1])
