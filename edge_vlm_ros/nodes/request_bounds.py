"""The limits of `core.request_limits`, for what a ROS request has beside its question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import check_camera_names, check_images, check_name

if TYPE_CHECKING:
    from edge_vlm_ros.nodes.conversions import AskRequest


def check_request(request: AskRequest) -> None:
    """Check the names in a request, and the images that it brings along.

    Raises:
        BadRequestError: A field is above its limit.
        TooManyFramesError: There are more images than any model takes.
    """
    check_name('request_id', request.request_id)
    check_name('session_id', request.session_id)
    check_camera_names(request.cameras)
    check_images(len(image.data) for image in (*request.images, *request.compressed_images))
    for image in request.images:
        check_name('encoding', image.encoding)
    for image in request.compressed_images:
        check_name('format', image.format)
    for image in (*request.images, *request.compressed_images):
        check_name('frame_id', image.header.frame_id)
