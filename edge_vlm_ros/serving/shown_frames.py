"""Frames on their way into a prompt: grouped and named, prepared, shown.

One `FrameGroup` becomes one `VisionInputs` and has one `FeatureKey`, whether a question shows it
or it was offered ahead of any question.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, TypeVar

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
    from collections.abc import Callable, Iterable, Iterator, Sequence


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


class _Named(Protocol):
    @property
    def key(self) -> FeatureKey: ...


_Group = TypeVar('_Group', bound=_Named)


def thin_out(groups: Sequence[_Group], most: int) -> tuple[_Group, ...]:
    """Leave out moments of clips, evenly in time, until `most` groups are left if that can be.

    Each camera keeps its newest moment, and of the longest clip most is left out; of equal ones
    the first camera's keeps more. Images that no camera took were chosen by the caller: they stay.

    Args:
        groups: Of one question, each camera's oldest first.
        most: Groups that are wanted at most.
    """
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        camera = group.key.frames[-1].camera
        if camera:
            places.setdefault(camera, []).append(place)
    counts = {camera: len(found) for camera, found in places.items()}
    excess = len(groups) - most
    while excess > 0 and max(counts.values(), default=1) > 1:
        counts[max(reversed(counts), key=lambda camera: counts[camera])] -= 1
        excess -= 1
    kept = {found[n] for camera, found in places.items() for n in _spread(found, counts[camera])}
    return tuple(
        group
        for place, group in enumerate(groups)
        if place in kept or not group.key.frames[-1].camera
    )


def _spread(items: Sequence[object], number: int) -> set[int]:
    """Choose so many places, evenly, from the first to the last; one = the last."""
    last = len(items) - 1
    if number == 1:
        return {last}
    return {(2 * n * last + number - 1) // (2 * (number - 1)) for n in range(number)}


def group_frames(
    frames: Sequence[StoredFrame],
    shown_as: ShownAs | None = None,
    frames_per_input: int = 1,
    *,
    shares_detail: bool = False,
) -> tuple[FrameGroup, ...]:
    """Group the frames that one question shows.

    Args:
        frames: In the order of the prompt.
        shown_as: As `Question.shown_as`: None = as the number of frames says.
        frames_per_input: The family's; so many neighbours make one input of a video. 1 = it knows
            no videos.
        shares_detail: The family's.
    """
    if shown_as is None and len(frames) == 1:
        shown_as = ShownAs.ALONE
    if shown_as is None and _are_images(frames):
        shown_as = ShownAs.ONE_OF_IMAGES
    if shown_as is ShownAs.ONE_OF_IMAGES and not shares_detail:
        shown_as = ShownAs.AMONG_OTHERS
    images = len(frames) if shown_as is ShownAs.ONE_OF_IMAGES else 1
    return tuple(
        FrameGroup(FeatureKey(tuple(map(name_frame, group)), way, images), group)
        for way, group in _groups(frames, shown_as, frames_per_input)
    )


class _Shows(Protocol):
    """A family, as far as it says how frames are grouped."""

    @property
    def frames_per_input(self) -> int: ...

    @property
    def shares_detail(self) -> bool: ...


def grouping(
    family: _Shows,
) -> Callable[[Sequence[StoredFrame], ShownAs | None], tuple[FrameGroup, ...]]:
    """Return how frames are grouped for a family: `group_frames` as it wants it."""
    return partial(
        group_frames,
        frames_per_input=family.frames_per_input,
        shares_detail=family.shares_detail,
    )


def _are_images(frames: Sequence[StoredFrame]) -> bool:
    """Return whether no camera shows more than one of these: what none took is an image."""
    cameras = [frame.source.camera for frame in frames if frame.source.camera]
    return bool(frames) and len(set(cameras)) == len(cameras)


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
