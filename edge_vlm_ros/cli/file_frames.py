"""Frames from files: what `--image` and `--video` name."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from edge_vlm_ros.core import (
    NS_PER_S,
    BadRequestError,
    FrameSource,
    RawImage,
    RgbImage,
    StoredFrame,
)
from edge_vlm_ros.vision.frame_sampler import spread
from edge_vlm_ros.vision.media import open_media, read_image


def frames_of_images(paths: Sequence[str]) -> tuple[StoredFrame, ...]:
    """Read image files, in the order given.

    Returns:
        One frame a file: `source.camera` is the path, the stamp is 0.

    Raises:
        BadRequestError: No such file.
        BadImageError: Not an image, damaged, or too large.
    """
    return tuple(_only_frame(path) for path in paths)


def frames_of_video(path: str, *, count: int, last_s: float | None) -> tuple[StoredFrame, ...]:
    """Read at most `count` frames, spread evenly in time over the video or its last seconds.

    The first and the last frame of that time are among them. The file is read twice, so that
    only the chosen frames are in memory, however long it is.

    Args:
        path: A video file, or a folder of images.
        count: Frames at most.
        last_s: Seconds at the end of the video; None = all of it.

    Returns:
        The frames, oldest first: `source.camera` is the path, the stamp is the media time.

    Raises:
        BadRequestError: No such file or folder.
        BadImageError: Not a video, or no frame in it.
    """
    # open_media would also take the number of a webcam; Path.exists raises for a long name.
    if not os.path.exists(path):  # noqa: PTH110
        raise BadRequestError(f'no such file or folder: {path}')
    with open_media(path) as media:
        times_s = [time_s for _, time_s in media]
    chosen = set(choose(times_s, count=count, last_s=last_s))
    with open_media(path) as media:
        return tuple(
            stored(path, image, time_s)
            for index, (image, time_s) in enumerate(media)
            if index in chosen
        )


def choose(times_s: Sequence[float], *, count: int, last_s: float | None) -> list[int]:
    """Choose frames evenly in time, as the node chooses them from a camera's buffer.

    Args:
        times_s: When each frame was taken, rising; at least one.
        count: Frames to choose, at least 1; one alone is the newest.
        last_s: Only frames of the last so many seconds; None = all.

    Returns:
        Indices into `times_s`, rising, at most `count`.
    """
    stamps = [round(time_s * NS_PER_S) for time_s in times_s]
    start_ns = 0 if last_s is None else stamps[-1] - round(last_s * NS_PER_S)
    first = bisect_left(stamps, start_ns)
    inside = [stamp - stamps[first] for stamp in stamps[first:]]
    return [first + index for index in spread(inside, count)]


def stored(path: str, image: RgbImage, time_s: float) -> StoredFrame:
    """Wrap decoded pixels as a camera's frame would come; the pixels are not copied."""
    height, width, _ = image.shape
    raw = RawImage('rgb8', width, height, 3 * width, image.reshape(-1).data)
    return StoredFrame(FrameSource(camera=path), round(time_s * NS_PER_S), raw)


def _only_frame(path: str) -> StoredFrame:
    return stored(path, read_image(Path(path)), 0.0)
