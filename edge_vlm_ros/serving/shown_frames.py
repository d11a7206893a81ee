"""Frames on their way into a prompt: grouped and named, prepared, shown.

One `FrameGroup` becomes one `VisionInputs` and has one `FeatureKey`, whether a question shows it
or it was offered ahead of any question.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import (
    ArrivalTime,
    BadFrame,
    FeatureKey,
    FrameKey,
    ImageDigest,
    RawImage,
    ShownAs,
    StoredFrame,
    VisionInputs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class FrameGroup:
    """The frames that make one `VisionInputs`: one, or neighbours of a video.

    Attributes:
        key: Names what is made of them.
        frames: As they came, oldest first.
    """

    key: FeatureKey
    frames: tuple[StoredFrame, ...] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames."""
        return sum(frame.nbytes for frame in self.frames)


@dataclass(frozen=True, slots=True)
class PreparedFrames:
    """What was made of a group for the vision tower.

    Attributes:
        inputs: Pixels, grid and placeholders.
        sizes: Width and height of each frame, pixels; (0, 0) = it cannot be decoded, and nothing
            was made of it.
        bad_frames: Those.
    """

    inputs: VisionInputs
    sizes: tuple[tuple[int, int], ...]
    bad_frames: tuple[BadFrame, ...] = ()

    def without_pixels(self) -> PreparedFrames:
        """Keep what prompt and answer need to know; forget the pixels."""
        blind = replace(self.inputs, pixels=np.empty(0, dtype=np.float32))
        return replace(self, inputs=blind)


@dataclass(frozen=True, slots=True)
class ShownFrames:
    """A group as a conversation keeps it: to be encoded again once its features are given up.

    Attributes:
        group: The frames.
        prepared: What was made of them, without pixels.
    """

    group: FrameGroup
    prepared: PreparedFrames

    @property
    def key(self) -> FeatureKey:
        """Names its features."""
        return self.group.key


def count_frames(shown: Iterable[ShownFrames]) -> int:
    """Count the frames, those of a group each by itself."""
    return sum(len(each.group.frames) for each in shown)


def group_frames(
    frames: Sequence[StoredFrame], shown_as: ShownAs | None = None, frames_per_input: int = 1
) -> tuple[FrameGroup, ...]:
    """Group the frames that one question shows.

    Args:
        frames: In the order of the prompt.
        shown_as: As `Question.shown_as`: None = as the number of frames says.
        frames_per_input: The family's; so many neighbours make one input of a video. 1 = it knows
            no videos.
    """
    if shown_as is None and len(frames) == 1:
        shown_as = ShownAs.ALONE
    return tuple(
        FrameGroup(FeatureKey(tuple(map(name_frame, group)), way), group)
        for way, group in _groups(frames, shown_as, frames_per_input)
    )


def _groups(
    frames: Sequence[StoredFrame], shown_as: ShownAs | None, size: int
) -> Iterator[tuple[ShownAs, tuple[StoredFrame, ...]]]:
    for camera, run in groupby(frames, key=lambda frame: frame.source.camera):
        neighbours = tuple(run)
        way = shown_as or (ShownAs.VIDEO if len(neighbours) > 1 else ShownAs.AMONG_OTHERS)
        if way is ShownAs.VIDEO and (size == 1 or not camera):  # No camera took it: no video.
            way = ShownAs.AMONG_OTHERS
        step = size if way is ShownAs.VIDEO else 1
        for start in range(0, len(neighbours), step):
            yield way, neighbours[start : start + step]


def name_frame(stored: StoredFrame) -> FrameKey:
    """Name a frame by what it shows.

    A camera's frame is known by stamp and time of arrival; images that no camera sent (files, the
    images of a request) are known by their bytes.
    """
    source = stored.source
    content = ArrivalTime(stored.received_ns) if stored.received_ns else _digest(stored)
    return FrameKey(source.camera, source.topic, stored.stamp_ns, content)


def _digest(stored: StoredFrame) -> ImageDigest:
    image = stored.image
    data = image.data if isinstance(image.data, bytes | bytearray) else bytes(image.data)
    digest = blake2b(data, digest_size=16)
    if isinstance(image, RawImage):
        layout = (image.encoding, image.width, image.height, image.step, image.is_bigendian)
        digest.update(repr(layout).encode())
    return ImageDigest(digest.digest())
