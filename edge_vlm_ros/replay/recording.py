"""Bags, videos and folders of images, opened by what they look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_vlm_ros.core import NS_PER_S, BadRequestError, FrameSource, RawImage, StoredFrame
from edge_vlm_ros.replay.arrivals import BAG_SUFFIXES, Arrival, Recording
from edge_vlm_ros.replay.bags import Bag
from edge_vlm_ros.vision import open_media

DEFAULT_CAMERA = 'camera'


def open_recording(path: str, topics: Mapping[str, str], fps: float = 0.0) -> Recording:
    """Open a bag of ROS 2 (mcap or db3), a video file, an image file or a folder of images.

    Args:
        path: Of it; of a bag the folder or its only file.
        topics: Cameras of a bag: name to topic; none = each topic with images.
        fps: Frames a second of a folder of images; 0 = that of `vision.media`.

    Raises:
        BadRequestError: No such file or folder, or no such topic.
        BadImageError: Nothing in it can be read.
        SetupError: A bag, and the package that reads them is not there.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise BadRequestError(f'no such file or folder: {path}')
    if is_bag(place):
        return Bag(place, topics)
    if topics:
        raise BadRequestError(f'{path} is no bag: it has one camera and no topics')
    return MediaRecording(place, fps)


def is_bag(place: Path) -> bool:
    """Return whether a path looks like that of a bag."""
    if place.is_dir():
        has_file = any(file.suffix in BAG_SUFFIXES for file in place.iterdir())
        return has_file or (place / 'metadata.yaml').exists()
    return place.suffix in BAG_SUFFIXES


class MediaRecording:
    """A video or a folder of images: one camera, each frame there when it was taken."""

    def __init__(self, place: Path, fps: float = 0.0) -> None:
        self.name = str(place)
        self.cameras = (DEFAULT_CAMERA,)
        self._place = place
        self._fps = fps

    def arrivals(self) -> Iterator[Arrival]:
        """Give out the frames in order (see `Recording`)."""
        source = FrameSource(DEFAULT_CAMERA, topic=self.name)
        with open_media(self._place, fps=self._fps) as media:
            for pixels, time_s in media:
                height, width, _ = pixels.shape
                image = RawImage('rgb8', width, height, 3 * width, pixels.reshape(-1).data)
                time_ns = round(time_s * NS_PER_S)
                yield Arrival(time_ns, StoredFrame(source, time_ns, image, time_ns))
