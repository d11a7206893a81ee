"""The limits of `core.request_limits`, for what a ROS request has beside its question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import check_camera_names, check_images

if TYPE_CHECKING:
    from edge_vlm_ros.nodes.conversions import AskRequest


def check_request(request: AskRequest) -> None:
    """Check the cameras that a request names, and the images that it brings along.

    Raises:
        BadRequestError: A field is above its limit.
        TooManyFramesError: There are more images than any model takes.
    """
    check_camera_names(request.cameras)
    check_images(len(image.data) for image in (*request.images, *request.compressed_images))
