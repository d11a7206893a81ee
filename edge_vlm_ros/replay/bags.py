"""Bags of ROS 2, read without ROS: the one module that knows `rosbags`.

Arrivals are when the recorder got a message. Stamps are the cameras' own, as long as they are of
the same clock as the recorder's; else a frame counts as taken when it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.core import (
    NS_PER_S,
    BadImageError,
    BadRequestError,
    CompressedImage,
    EdgeVlmError,
    FrameSource,
    RawImage,
    SetupError,
    StoredFrame,
)
from edge_vlm_ros.replay.arrivals import BAG_SUFFIXES, Arrival

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

IMAGES = {'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'}
OTHER_CLOCK_NS = 60 * NS_PER_S
"""A stamp that is farther from its arrival is of another clock; as in `nodes.node_time`."""


class Bag:
    """A recording of rosbag2, mcap or db3.

    Args:
        place: Its folder, or its only file.
        topics: Cameras: name to topic; none = each topic with images, named by it.

    Raises:
        BadRequestError: There is no such topic, or none with images.
        BadImageError: It cannot be read.
        SetupError: `rosbags` is not installed.
    """

    def __init__(self, place: Path, topics: Mapping[str, str]) -> None:
        self.name = str(place)
        self._place = place if place.is_dir() else _folder_of(place)
        with _open(self._place) as reader:
            found = {c.topic: c.msgtype for c in reader.connections if c.msgtype in IMAGES}
        if not found:
            raise BadRequestError(f'{place} has no topic with images')
        chosen = dict(topics) or {_camera_name(topic): topic for topic in sorted(found)}
        for topic in chosen.values():
            if topic not in found:
                listed = ', '.join(sorted(found))
                raise BadRequestError(f'{place} has no images on {topic!r}; it has {listed}')
        self._cameras = {topic: name for name, topic in chosen.items()}
        self.cameras = tuple(chosen)

    def arrivals(self) -> Iterator[Arrival]:
        """Give out the frames in order (see `Recording`)."""
        with _open(self._place) as reader:
            chosen = [c for c in reader.connections if c.topic in self._cameras]
            start_ns = -1
            for connection, arrived_ns, data in reader.messages(connections=chosen):
                start_ns = arrived_ns if start_ns < 0 else start_ns
                message: Any = reader.deserialize(data, connection.msgtype)
                yield self._arrival(connection.topic, message, arrived_ns, start_ns)

    def _arrival(self, topic: str, message: Any, arrived_ns: int, start_ns: int) -> Arrival:
        header = message.header
        stamp_ns = header.stamp.sec * NS_PER_S + header.stamp.nanosec
        if abs(stamp_ns - arrived_ns) > OTHER_CLOCK_NS:
            stamp_ns = arrived_ns
        time_ns = arrived_ns - start_ns
        source = FrameSource(self._cameras[topic], topic, header.frame_id)
        frame = StoredFrame(source, stamp_ns - start_ns, _image(message), max(1, time_ns))
        return Arrival(time_ns, frame)


def _image(message: Any) -> RawImage | CompressedImage:
    data = message.data.data  # a memoryview of numpy's bytes
    if hasattr(message, 'format'):
        return CompressedImage(message.format, data)
    return RawImage(
        message.encoding,
        message.width,
        message.height,
        message.step,
        data,
        bool(message.is_bigendian),
    )


def _camera_name(topic: str) -> str:
    """Name a camera by its topic, without what all topics of images end in."""
    parts = [part for part in topic.split('/') if part]
    while len(parts) > 1 and parts[-1] in {'compressed', 'image', 'image_raw', 'image_rect'}:
        parts.pop()
    return '_'.join(parts)


def _folder_of(file: Path) -> Path:
    """Return the folder of a bag's only file."""
    others = [f for suffix in BAG_SUFFIXES for f in file.parent.glob(f'*{suffix}') if f != file]
    if others or not (file.parent / 'metadata.yaml').exists():
        raise BadRequestError(
            f'{file}: name the folder of the bag, with its metadata.yaml (`ros2 bag reindex` '
            'makes one)'
        )
    return file.parent


@contextmanager
def _open(folder: Path) -> Iterator[AnyReader]:
    """Open a bag; whatever goes wrong while it is read names it.

    Raises:
        BadImageError: It cannot be read.
        SetupError: `rosbags` is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise SetupError(
            f'bags are read by the package rosbags, which is not here ({error}): pip install '
            "'edge_vlm_ros[replay]'"
        ) from error
    try:
        store = get_typestore(Stores.ROS2_HUMBLE)
        with AnyReader([folder], default_typestore=store) as reader:
            yield reader
    except EdgeVlmError:
        raise
    except Exception as error:  # What a damaged file makes the libraries raise, nobody lists.
        raise BadImageError(f'{folder} cannot be read as a bag: {error}') from error
