"""Frames decoded, prepared and encoded, and what is kept of that. The `ChipWorker`'s thread's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_vlm_ros.core import (
    BadFrame,
    BadImageError,
    FeatureKey,
    Frame,
    ShownAs,
    VisionFeatures,
)
from edge_vlm_ros.engines import Engine
from edge_vlm_ros.engines.checks import check_features
from edge_vlm_ros.families.base import ModelFamily
from edge_vlm_ros.scheduling import Encoded, Prepared
from edge_vlm_ros.serving.shown_frames import FrameGroup, PreparedFrames, ShownFrames
from edge_vlm_ros.vision import decode_frame, decode_image


@dataclass(frozen=True, slots=True)
class _Kept:
    """Features in the cache, and what a prompt needs to know of their frames."""

    features: VisionFeatures
    prepared: PreparedFrames


class NothingDecodedError(BadImageError):
    """No frame of a camera's group can be decoded.

    Attributes:
        bad_frames: These.
    """

    def __init__(self, bad_frames: tuple[BadFrame, ...]) -> None:
        first = bad_frames[0]
        super().__init__(f'camera {first.source.camera!r}: {first.reason}')
        self.bad_frames = bad_frames


class FeatureStore:
    """Makes pixels and features of frames, and keeps them until it is told to forget.

    Args:
        engine: Its vision tower makes the features.
        family: Makes the pixels.
    """

    def __init__(self, engine: Engine, family: ModelFamily) -> None:
        self._engine, self._family = engine, family
        self._prepared: dict[FeatureKey, PreparedFrames] = {}  # With pixels, to be encoded.
        self._kept: dict[FeatureKey, _Kept] = {}

    def prepare(self, group: FrameGroup) -> Prepared:
        """Decode a group, and make what the vision tower takes of it.

        Raises:
            NothingDecodedError: No frame of a camera's group can be decoded.
            BadImageError: One that did not come from a camera cannot.
        """
        decoded, bad_frames = _decode(group)
        frames = [frame for frame in decoded if frame is not None]
        way = group.key.shown_as
        if way is ShownAs.VIDEO:
            inputs = self._family.preprocess_clip(frames)
        elif way is ShownAs.ONE_OF_IMAGES:
            (frame,) = frames
            inputs = self._family.preprocess_one_of(frame, group.key.images)
        else:
            (frame,) = frames
            inputs = self._family.preprocess(frame, way)
        sizes = tuple(
            (0, 0) if frame is None else (frame.pixels.shape[1], frame.pixels.shape[0])
            for frame in decoded
        )
        self._prepared[group.key] = PreparedFrames(inputs, sizes, bad_frames)
        return Prepared()

    def encode(self, group: FrameGroup) -> Encoded:
        """Run the vision tower on a group, which is prepared first if it is not.

        Raises:
            EdgeVlmError: As `prepare` and `Engine.encode`.
            DeviceError: The features are no numbers; they are not kept.
        """
        if group.key not in self._prepared:  # Shown in an earlier turn, its features given up.
            self.prepare(group)
        prepared = self._prepared.pop(group.key)
        features = self._engine.encode(prepared.inputs)
        check_features(features)
        self._kept[group.key] = _Kept(features, prepared.without_pixels())
        return Encoded(features.nbytes)

    def shown(self, group: FrameGroup) -> ShownFrames:
        """Return a group as a conversation keeps it; it is prepared or encoded."""
        prepared = self._prepared.get(group.key) or self._kept[group.key].prepared
        return ShownFrames(group, prepared.without_pixels())

    def pixels(self, key: FeatureKey) -> int:
        """Count the values that the vision tower will be given; 0 = it is not prepared."""
        prepared = self._prepared.get(key)
        return 0 if prepared is None else prepared.inputs.pixels.size

    def has(self, key: FeatureKey) -> bool:
        """Return whether there are features under a key."""
        return key in self._kept

    def features(self, keys: Iterable[FeatureKey]) -> dict[FeatureKey, VisionFeatures]:
        """Return the features under these keys, where there are any."""
        return {key: self._kept[key].features for key in keys if key in self._kept}

    def forget(self, keys: Iterable[FeatureKey]) -> None:
        """Give up what is kept under these keys."""
        for key in keys:
            self._prepared.pop(key, None)
            self._kept.pop(key, None)


def _decode(group: FrameGroup) -> tuple[list[Frame | None], tuple[BadFrame, ...]]:
    """Decode a group; return its frames, None for those that cannot be decoded, and these.

    Only frames of live cameras are left out: another one comes soon. An image that a request or a
    file brought is what was asked about.

    Raises:
        BadImageError: No frame can be decoded, or one that did not come from a camera.
    """
    decoded: list[Frame | None] = []
    bad_frames: list[BadFrame] = []
    for stored in group.frames:
        if not stored.received_ns:
            decoded.append(decode_frame(stored))
            continue
        try:
            decoded.append(Frame(decode_image(stored.image), stored.stamp_ns, stored.source))
        except BadImageError as error:
            decoded.append(None)
            bad_frames.append(
                BadFrame(stored.source, stored.stamp_ns, stored.received_ns, error.message)
            )
    if len(bad_frames) == len(decoded):
        raise NothingDecodedError(tuple(bad_frames))
    return decoded, tuple(bad_frames)
