"""Frames from outside ROS: video files, image files, folders of images, webcams.

All four are read the same way: iterate a `MediaReader`, get RGB frames with their times. Whether a
file is an image or a video is told by its first bytes; a suffix only chooses files of a folder.
"""

from __future__ import annotations

import logging
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
from edge_vlm_ros.vision.image_header import looks_like_image
from edge_vlm_ros.vision.limits import check_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from edge_vlm_ros.core import RgbImage

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})
"""Files of a folder that are read as images."""

FOLDER_FPS = 2.0
"""Frames per second of a folder of images when the caller does not say."""

FALLBACK_FPS = 30.0
"""Frames per second where a video file or a webcam does not say."""


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
        if path.suffix.lower() in IMAGE_SUFFIXES or _starts_like_image(path):
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
        return decode_image(CompressedImage('', data))
    except BadImageError as error:
        raise BadImageError(f'{path}: {error.message}') from error


def _starts_like_image(path: Path) -> bool:
    try:
        with path.open('rb') as file:
            return looks_like_image(file.read(32))
    except OSError as error:
        raise BadRequestError(f'cannot read {path}: {error.strerror}') from error


def _to_rgb(bgr: RgbImage) -> RgbImage:
    check_size(bgr.shape[1], bgr.shape[0])
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    rgb.flags.writeable = False
    return rgb


def _images_in(folder: Path) -> tuple[Path, ...]:
    """List a folder's images, numbers in names counted as numbers (frame_9 before frame_10).

    Hidden files are left out, so also the `._` twins that a Mac writes beside each file.
    """
    named = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    found = [path for path in named if path.is_file() and not path.name.startswith('.')]
    if len(found) < len(named):
        passed_over = ', '.join(sorted(path.name for path in set(named) - set(found))[:5])
        _log.warning('%s: folders and hidden files are passed over: %s', folder, passed_over)
    if not found:
        raise BadImageError(
            f'{folder} holds no images; looked for {", ".join(sorted(IMAGE_SUFFIXES))}'
        )
    return tuple(sorted(found, key=_natural))


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    parts = re.findall(r'\d+|\D+', path.name.lower())
    return tuple((int(part), '') if part.isdecimal() else (-1, part) for part in parts)


class _ImageFiles(MediaReader):
    """One image file or a folder of them, read one at a time.

    In a folder, files that cannot be read are passed over, each with one warning.
    """

    def __init__(self, name: Path, paths: tuple[Path, ...], fps: float, *, loop: bool) -> None:
        self.name = str(name)
        self.fps = fps
        self._paths = paths
        self._loop = loop
        self._bad: set[Path] = set()
        if not any(self._read(path) is not None for path in paths):
            raise BadImageError(f'{name}: none of its {len(paths)} images can be read')

    def __iter__(self) -> Iterator[MediaFrame]:
        count = 0
        while True:
            start = count
            for path in self._paths:
                pixels = self._read(path)
                if pixels is not None:
                    yield MediaFrame(pixels, count / self.fps)
                    count += 1
            if count == start:
                raise BadImageError(f'{self.name}: none of its images can be read any more')
            if not self._loop:
                return

    def _read(self, path: Path) -> RgbImage | None:
        """Return an image; None where it is one of several and cannot be read."""
        try:
            pixels = read_image(path)
        except (BadImageError, BadRequestError) as error:
            if len(self._paths) == 1:
                raise
            if path not in self._bad:
                self._bad.add(path)
                _log.warning('passed over: %s', error.message)
            return None
        self._bad.discard(path)
        return pixels


class _VideoFile(MediaReader):
    """A video file; each frame has the time that the file gives it, the first one has 0.

    With a frame rate of the caller's own, and where a file gives no rising times, times are
    frame numbers over frames per second.
    """

    def __init__(self, path: Path, fps: float, *, loop: bool) -> None:
        self.name = str(path)
        self._loop = loop
        self._has_own_times = not fps
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
        start_s = 0.0
        while True:
            last_s = start_s
            for bgr, time_s in self._one_pass():
                last_s = start_s + time_s
                yield MediaFrame(_to_rgb(bgr), last_s)
            if not self._loop:
                return
            start_s = last_s + 1.0 / self.fps

    def _one_pass(self) -> Iterator[tuple[RgbImage, float]]:
        """Give the frames once, each with its time since the first, seconds."""
        capture = self._capture()
        times = _RisingTimes(self.fps)
        try:
            while True:
                found, bgr = capture.read()
                if not found:
                    return
                own_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 if self._has_own_times else 0.0
                yield np.asarray(bgr, np.uint8), times.next(own_s)
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
                'codec is not built in'
            )
        self._open.append(capture)
        return capture

    def _release(self, capture: cv2.VideoCapture) -> None:
        capture.release()
        if capture in self._open:
            self._open.remove(capture)


class _RisingTimes:
    """Times of a video's frames that begin at 0 and rise, whatever the file says.

    Args:
        fps: Gives the time of a frame whose own is missing or does not rise.
    """

    def __init__(self, fps: float) -> None:
        self._period_s = 1.0 / fps
        self._first_s: float | None = None
        self._last_s = 0.0

    def next(self, own_s: float) -> float:
        """Return the time of the next frame, which the file gives as `own_s`."""
        if self._first_s is None:
            self._first_s = own_s if math.isfinite(own_s) else 0.0
            return 0.0
        time_s = own_s - self._first_s
        if not (math.isfinite(time_s) and time_s > self._last_s):
            time_s = self._last_s + self._period_s
        self._last_s = time_s
        return time_s


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
