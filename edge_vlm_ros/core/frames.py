"""Frames: as a camera sent them (stored) and as a model sees them (decoded)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

RgbImage: TypeAlias = NDArray[np.uint8]
"""uint8, (H, W, 3), RGB."""

# array.array, bytes, memoryview and numpy bytes all serve: storing a frame copies nothing.
Buffer: TypeAlias = 'bytes | bytearray | memoryview | Sequence[int]'


@dataclass(frozen=True, slots=True)
class RawImage:
    """The pixels of a `sensor_msgs/Image`, unconverted.

    Attributes:
        encoding: As in sensor_msgs/image_encodings.hpp: 'rgb8', 'bgr8', 'mono16', 'nv12', ...
        width: Pixels in a row.
        height: Rows.
        step: Bytes from one row to the next; at least the row's own bytes.
        is_bigendian: Byte order of 16-bit encodings.
        data: The bytes; not copied, not to be written to.
        range16: Of 16-bit encodings, the values that become 0 and 255; (0, 0) = 0 and 65535, and
            an image that uses only the lowest 14 bits is refused rather than shown black.
    """

    encoding: str
    width: int
    height: int
    step: int
    data: Buffer = field(repr=False)
    is_bigendian: bool = False
    range16: tuple[int, int] = (0, 0)

    @property
    def nbytes(self) -> int:
        """Bytes this image keeps in memory."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """The bytes of a `sensor_msgs/CompressedImage`: JPEG, PNG or another image file.

    Attributes:
        format: The message's format string, for example 'jpeg' or 'rgb8; jpeg compressed bgr8'.
        data: The encoded file; not copied, not to be written to.
        range16: As in `RawImage`, for files of 16 bits a channel.
    """

    format: str
    data: Buffer = field(repr=False)
    range16: tuple[int, int] = (0, 0)

    @property
    def nbytes(self) -> int:
        """Bytes this image keeps in memory."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Where a frame comes from: the camera's name, its topic and its optical frame_id."""

    camera: str
    topic: str = ''
    frame_id: str = ''


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """One camera frame, kept as it came.

    Attributes:
        source: Camera, topic, frame_id.
        stamp_ns: The sensor's stamp (ROS time), nanoseconds.
        image: Raw or compressed.
        received_ns: Steady time of arrival, nanoseconds; 0 when it did not come from a camera.
        taken_ns: When it was taken by the clock of whoever keeps it (ROS time), nanoseconds: the
            stamp, or the time of arrival where the stamp is of another clock; 0 = the stamp.
    """

    source: FrameSource
    stamp_ns: int
    image: RawImage | CompressedImage
    received_ns: int = 0
    taken_ns: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes this frame keeps in memory."""
        return self.image.nbytes


@dataclass(frozen=True, slots=True)
class ArrivalTime:
    """Tells a camera's frames of one stamp apart: a simulation that starts over stamps anew.

    Attributes:
        received_ns: Steady time of arrival, nanoseconds.
    """

    received_ns: int


@dataclass(frozen=True, slots=True)
class ImageDigest:
    """Tells images apart that no camera sent (files, the images of a request): by their bytes.

    Attributes:
        digest: Of the bytes and, for a raw image, of how they are laid out.
    """

    digest: bytes


@dataclass(frozen=True, slots=True)
class FrameKey:
    """Names one frame of one camera: frames under the same key show the same.

    Attributes:
        camera: The camera's name.
        topic: Its topic.
        stamp_ns: The sensor's stamp (ROS time), nanoseconds.
        content: What tells apart frames of the same stamp.
    """

    camera: str
    topic: str
    stamp_ns: int
    content: ArrivalTime | ImageDigest


class ShownAs(Enum):
    """How a prompt shows a frame. It decides what is made of the frame for the vision tower.

    A question says it (`Question.shown_as`), or the number of its frames does. What a family
    makes of a frame never depends on how many are beside it, so a prompt may gain frames at its
    end: see `ModelFamily.render_prefix`. ONE_OF_IMAGES does, and such a prompt does not grow.
    """

    ALONE = 'alone'
    """An image in full detail: as many tiles or patches as the model was trained with."""

    AMONG_OTHERS = 'among others'
    """One of several images, with fewer pixels: one tile, or fewer patches."""

    ONE_OF_IMAGES = 'one of several images'
    """The only one of its camera beside those of others, which share the detail of one image. For
    families that make a difference between images and moments of a clip
    (`ModelFamily.shares_detail`); others are shown it AMONG_OTHERS."""

    VIDEO = 'video'
    """A moment of a video, together with its neighbours of the same camera."""


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """Names what the vision tower makes of one frame, or of neighbouring frames of a video.

    Whatever question shows them: features under the same key are the same.

    Attributes:
        frames: The frames that go through the vision tower together, oldest first; at least one.
        shown_as: How.
        images: ONE_OF_IMAGES, how many share the detail of one; else 1.
    """

    frames: tuple[FrameKey, ...]
    shown_as: ShownAs
    images: int = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame.

    Attributes:
        pixels: uint8, (H, W, 3), RGB, read-only.
        stamp_ns: The sensor's stamp (ROS time), nanoseconds.
        source: Camera, topic, frame_id.
    """

    pixels: RgbImage = field(repr=False)
    stamp_ns: int
    source: FrameSource


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Which frame an answer used.

    Attributes:
        source: Camera, topic, frame_id.
        stamp_ns: The sensor's stamp (ROS time), nanoseconds.
        width: Pixels.
        height: Pixels.
        age_s: Steady time from its arrival to the question's, seconds; 0 = it came later, or from
            no camera.
        taken_ns: As in `StoredFrame`.
    """

    source: FrameSource
    stamp_ns: int
    width: int
    height: int
    age_s: float = 0.0
    taken_ns: int = 0


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A camera's frame that cannot be decoded; named as `FrameKey` names one.

    Attributes:
        source: Camera, topic, frame_id.
        stamp_ns: The sensor's stamp (ROS time), nanoseconds.
        received_ns: Steady time of arrival, nanoseconds.
        reason: Why, for people.
    """

    source: FrameSource
    stamp_ns: int
    received_ns: int
    reason: str
