"""Webcams, videos and images as cameras of the page: played while somebody looks."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2

from edge_vlm_ros.cli.file_frames import stored
from edge_vlm_ros.core import NS_PER_S, EdgeVlmError, FrameSource, RgbImage, StoredFrame
from edge_vlm_ros.vision.media import MediaReader, open_media
from edge_vlm_ros.web import Camera, Picture

FPS: Final = 10.0
"""Frames a second that are shown and can be asked about; those between are left out."""
QUALITY: Final = 85


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame, as a model takes it and as the page shows it."""

    frame: StoredFrame
    picture: Picture


class Source:
    """One file or webcam, played over and over by a thread of its own while it is open.

    Args:
        name: The camera's.
        path: A file, a folder, or a webcam's index.

    Raises:
        EdgeVlmError: It cannot be opened.
    """

    def __init__(self, name: str, path: str) -> None:
        self.camera: Final = Camera(name, path, 'file')
        self.problem = ''
        self._media: MediaReader = open_media(path, loop=True)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, show: Callable[[Shown], None]) -> None:
        """Play; `show` is called with each frame, on the source's thread."""
        self.close()
        stop = self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._play, args=(show, stop), name=f'play {self.camera.name}', daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop playing; safe to call twice."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def release(self) -> None:
        """Let the file or webcam go."""
        self.close()
        self._media.close()

    def _play(self, show: Callable[[Shown], None], stop: threading.Event) -> None:
        self.problem = ''
        try:
            for pixels in self._due_frames(stop):
                show(self._shown(pixels))
        except EdgeVlmError as error:
            self.problem = error.message

    def _due_frames(self, stop: threading.Event) -> Iterator[RgbImage]:
        """Give frames at their time, `FPS` at most."""
        start_s = time.monotonic()
        next_s = 0.0
        for pixels, time_s in self._media:
            if stop.is_set():
                return
            if time_s < next_s:
                continue
            next_s = max(next_s, time_s - 1 / FPS) + 1 / FPS
            late_s = time.monotonic() - start_s - time_s
            if late_s > 1 / FPS:
                start_s += late_s  # no burst after a halt: go on from now
            elif stop.wait(max(0.0, -late_s)):
                return
            yield pixels

    def _shown(self, pixels: RgbImage) -> Shown:
        now_ns = time.time_ns()
        frame = replace(
            stored(self.camera.name, pixels, now_ns / NS_PER_S),
            source=FrameSource(self.camera.name, self.camera.topic),
            stamp_ns=now_ns,
            received_ns=time.monotonic_ns(),
        )
        quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
        return Shown(frame, Picture(now_ns, jpeg.tobytes()))


def open_sources(args: Namespace) -> dict[str, Source]:
    """Open what the command line names; each gets a name of its own.

    Raises:
        EdgeVlmError: One cannot be opened; the others are let go.
    """
    sources: dict[str, Source] = {}
    wanted = [(f'camera{index}', index) for index in args.camera]
    wanted += [(Path(path).stem or 'video', path) for path in (*args.video, *args.image)]
    try:
        for base, path in wanted:
            name, count = base, 2
            while name in sources:
                name, count = f'{base}-{count}', count + 1
            sources[name] = Source(name, path)
    except EdgeVlmError:
        for source in sources.values():
            source.release()
        raise
    return sources
