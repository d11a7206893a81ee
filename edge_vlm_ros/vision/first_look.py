"""What can be seen of a frame without decoding it: whether it is worth keeping.

Free of OpenCV, for the process that has the cameras.
"""

from __future__ import annotations

from edge_vlm_ros.core import CompressedImage, RawImage
from edge_vlm_ros.vision.image_header import read_header
from edge_vlm_ros.vision.limits import check_size
from edge_vlm_ros.vision.raw_layout import check_layout


def check_at_first_look(image: RawImage | CompressedImage) -> None:
    """Refuse an image that surely cannot be decoded; most others can.

    Raises:
        BadImageError: A raw image of an unknown encoding or of fewer bytes than it claims; a file
            that is empty, cut, too large, or of a format that is not read.
    """
    if isinstance(image, RawImage):
        check_layout(image)
        return
    header = read_header(bytes(image.data))
    check_size(header.width, header.height)
    header.check_whole(image.nbytes)
