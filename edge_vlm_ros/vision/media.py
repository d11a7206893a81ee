"""Frames from outside ROS: video files, image files, folders of images, webcams.

All four are read the same way: iterate a `MediaReader`, get RGB frames with their times.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from edge_vlm_ros.core import (
    NS_PER_S,
    BadImageError,
    BadRequestError,
    Clock,
    CompressedImage,
    SteadyClock,
)
from edge_vlm_ros.vision.colour import decode_image
from edge_vlm_ros.vision.limits import check_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from edge_vlm_ros.core import RgbImage

IMAGE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})
"""Files that are read as one image; any other file is taken for a video."""

FOLDER_FPS = 2.0
"""Frames per second of a folder of images when the caller does not say."""

FALLBACK_FPS = 30.0
"""Frames per second where a video file or a webcam does not tell."""


class MediaFrame(NamedTuple):
    """One frame, to be unpacked.

    Attributes:
        pixels: uint8, (H, W, 3), RGB, read-only; owned by the caller.
        time_s: Since the first frame, seconds; keeps rising when a clip starts over.
    """

    pixels: RgbImage
    time_s: float


class MediaReader(ABC):
    """Frames of one source, in order.

    Files may be iterated again and again, each time from the start; a webcam goes on. One thread
    at a time. Close it, or use it in a `with` statement.

    Attributes:
        name: For people: the path, or 'webcam 0'.
        fps: Frames per second, above 0. A webcam comes at its own pace, a file does not wait.
    """

    name: str
    fps: float

    @abstractmethod
    def __iter__(self) -> Iterator[MediaFrame]:
        """Give out frames, until the source ends.

        Raises:
            BadImageError: A frame that cannot be read, or none at all.
        """

    def close(self) -> None:
        """Let the source go; safe to call twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_media(
    source: str | Path | int, *, fps: float = 0.0, loop: bool = False, clock: Clock | None = None
) -> MediaReader:
    """Open a video file, an image file, a folder of images, or a webcam.

    What can be known without reading everything is checked now: a video's first frame is decoded,
    so a codec that is missing here shows at once.

    Args:
        source: A path, or a webcam's index (a number, or a string of digits that names no file).
        fps: Frames per second; 0 = the video's own, `FOLDER_FPS` for images, the webcam's default.
        loop: Start over at the end, for ever; a webcam has no end.
        clock: Times a webcam's frames; None = the machine's.

    Raises:
        BadRequestError: No such file, folder or webcam; a bad `fps`.
        BadImageError: A file or folder without a frame that can be read.
    """
    if not 0.0 <= fps <= 1000.0:
        raise BadRequestError(f'fps is from 0 (its own) to 1000, not {fps}')
    if isinstance(source, int):
        return _Webcam(source, fps, clock or SteadyClock())
    path = Path(source).expanduser()
    if path.is_dir():
        return _ImageFiles(path, _images_in(path), fps or FOLDER_FPS, loop=loop)
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _ImageFiles(path, (path,), fps or FOLDER_FPS, loop=loop)
        return _VideoFile(path, fps, loop=loop)
    if str(source).isdecimal():
        return _Webcam(int(str(source)), fps, clock or SteadyClock())
    raise BadRequestError(f'no such file or folder: {path}')


def read_image(path: Path) -> RgbImage:
    """Read one image file.

    Returns:
        uint8, (H, W, 3), RGB, read-only.

    Raises:
        BadRequestError: The file cannot be read.
        BadImageError: It is not an image, damaged, or too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequestError(f'cannot read {path}: {error.strerror}') from error
    try:
        if path.suffix.lower() in {'.jpeg', '.jpg', '.png'}:
            return decode_image(CompressedImage('', data))
        return _decode_other(data)
    except BadImageError as error:
        raise BadImageError(f'{path}: {error.message}') from error


def _decode_other(data: bytes) -> RgbImage:
    """Decode BMP, TIFF and WebP, which a camera topic never carries."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        raise BadImageError(f'the file is damaged: {error}') from error
    if bgr is None:
        raise BadImageError(f'the file ({len(data)} bytes) is not an image, or damaged')
    return _to_rgb(np.asarray(bgr, np.uint8))


def _to_rgb(bgr: RgbImage) -> RgbImage:
    check_size(bgr.shape[1], bgr.shape[0])
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    rgb.flags.writeable = False
    return rgb


def _images_in(folder: Path) -> tuple[Path, ...]:
    """List a folder's images, numbers in names counted as numbers (frame_9 before frame_10)."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise BadImageError(
            f'{folder} holds no images; looked for {", ".join(sorted(IMAGE_SUFFIXES))}'
        )
    return tuple(sorted(found, key=_natural))


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    parts = re.findall(r'\d+|\D+', path.name.lower())
    return tuple((int(part), '') if part.isdecimal() else (-1, part) for part in parts)


class _ImageFiles(MediaReader):
    """One image file or a folder of them, read one at a time."""

    def __init__(self, name: Path, paths: tuple[Path, ...], fps: float, *, loop: bool) -> None:
        self.name = str(name)
        self.fps = fps
        self._paths = paths
        self._loop = loop
        read_image(paths[0])

    def __iter__(self) -> Iterator[MediaFrame]:
        count = 0
        while True:
            for path in self._paths:
                yield MediaFrame(read_image(path), count / self.fps)
                count += 1
            if not self._loop:
                return


class _VideoFile(MediaReader):
    """A video file; times are frame numbers over frames per second."""

    def __init__(self, path: Path, fps: float, *, loop: bool) -> None:
        self.name = str(path)
        self._loop = loop
        self._open: list[cv2.VideoCapture] = []
        capture = self._capture()
        own = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or _plausible_fps(own)
        found, _ = capture.read()
        self._release(capture)
        if not found:
            raise BadImageError(
                f'{path}: no frame can be read: empty, damaged, or its codec is not built in'
            )

    def __iter__(self) -> Iterator[MediaFrame]:
        count = 0
        capture = self._capture()
        try:
            while True:
                found, bgr = capture.read()
                if found:
                    yield MediaFrame(_to_rgb(np.asarray(bgr, np.uint8)), count / self.fps)
                    count += 1
                elif self._loop:
                    self._release(capture)
                    capture = self._capture()
                else:
                    return
        finally:
            self._release(capture)

    def close(self) -> None:
        for capture in list(self._open):
            self._release(capture)

    def _capture(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.name)
        if not capture.isOpened():
            raise BadImageError(
                f'{self.name} is not a video that OpenCV can open: damaged, or its container or '
                'codec is not built in; images are known by their suffix '
                f'({", ".join(sorted(IMAGE_SUFFIXES))})'
            )
        self._open.append(capture)
        return capture

    def _release(self, capture: cv2.VideoCapture) -> None:
        capture.release()
        if capture in self._open:
            self._open.remove(capture)


class _Webcam(MediaReader):
    """A local camera by index; frames come at its own pace, iterating waits for them."""

    def __init__(self, index: int, fps: float, clock: Clock) -> None:
        self.name = f'webcam {index}'
        if index < 0:
            raise BadRequestError(f'a webcam has an index of 0 or more, not {index}')
        self._clock = clock
        self._start_ns = 0
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise BadRequestError(
                f'cannot open {self.name}: no such device, in use, or not allowed '
                '(on Linux: is /dev/video* there, are you in the group video?)'
            )
        if fps:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        self.fps = fps or _plausible_fps(self._capture.get(cv2.CAP_PROP_FPS))

    def __iter__(self) -> Iterator[MediaFrame]:
        while True:
            found, bgr = self._capture.read()
            if not found:
                raise BadImageError(f'{self.name} gives no more frames; was it unplugged?')
            now_ns = self._clock.now_ns()
            self._start_ns = self._start_ns or now_ns
            time_s = (now_ns - self._start_ns) / NS_PER_S
            yield MediaFrame(_to_rgb(np.asarray(bgr, np.uint8)), time_s)

    def close(self) -> None:
        self._capture.release()


def _plausible_fps(fps: float) -> float:
    """Return a usable frame rate: containers and drivers write 0, NaN or 90000 when unsure."""
    return fps if math.isfinite(fps) and 0.1 <= fps <= 1000.0 else FALLBACK_FPS
