"""The cameras as a page sees them: open while somebody looks, the newest picture to everybody."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from edge_vlm_ros.web import bounds
from edge_vlm_ros.web.pictures import PictureStore
from edge_vlm_ros.web.robot import Picture, Robot

LOOK_EVERY_S = 1.0
"""How often a moving image without new pictures looks whether its browser is still there."""


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """How a feed does.

    Attributes:
        name: The camera's.
        pictures: That came since somebody looks.
        silence_s: Steady time since the last one; None = none has come.
    """

    name: str
    pictures: int
    silence_s: float | None


class Feed:
    """One camera while somebody looks at it."""

    def __init__(self) -> None:
        self.store = PictureStore()
        self.newest: Picture | None = None
        self.count = 0
        self._came_s = 0.0
        self._changed = asyncio.Event()

    def show(self, picture: Picture) -> None:
        """Take a picture; one that is too large is dropped."""
        if len(picture.jpeg) > bounds.MAX_JPEG_BYTES:
            return
        self.store.add(picture)
        self.count += 1
        self._came_s = time.monotonic()
        if self.newest is None or picture.stamp_ns != self.newest.stamp_ns:
            self.newest = picture
            self._changed.set()
            self._changed = asyncio.Event()

    @property
    def silence_s(self) -> float | None:
        """Steady time since the last picture; None = none has come."""
        return time.monotonic() - self._came_s if self.count else None

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next picture, so long at most."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except asyncio.TimeoutError:
            return


class Feeds:
    """Counts who looks at which camera; opens the robot's with the first, closes with the last.

    Args:
        robot: Whose cameras.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._feeds: dict[str, Feed] = {}
        self._lookers: Counter[str] = Counter()

    def look(self, name: str) -> Feed:
        """Begin to look at a camera; whoever does calls `leave` once."""
        self._lookers[name] += 1
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = Feed()
            self._robot.open_camera(name, feed.show)
        return feed

    def leave(self, name: str) -> None:
        """Look no more."""
        self._lookers[name] -= 1
        if self._lookers[name] <= 0:
            del self._lookers[name]
            del self._feeds[name]
            self._robot.close_camera(name)

    def get(self, name: str) -> Feed | None:
        """Return a camera's feed; None = nobody looks at it."""
        return self._feeds.get(name)

    def facts(self, names: Iterable[str]) -> list[FeedFacts]:
        """Return how the feeds of these cameras do; of those alone that somebody looks at."""
        return [
            FeedFacts(name, feed.count, feed.silence_s)
            for name in names
            if (feed := self._feeds.get(name)) is not None
        ]


async def moving(feed: Feed) -> AsyncIterator[Picture | None]:
    """Give out the newest picture again and again, `MAX_FPS` at most; those between are left out.

    None comes now and then while there is no new one, for who wants to look after other things.
    """
    shown: Picture | None = None
    while True:
        began_s = time.monotonic()
        if feed.newest is not None and feed.newest is not shown:
            shown = feed.newest
            yield shown
            rest_s = began_s + 1.0 / bounds.MAX_FPS - time.monotonic()
            if rest_s > 0:
                await asyncio.sleep(rest_s)
        elif feed.newest is shown:
            await feed.wait(LOOK_EVERY_S)
            if feed.newest is shown:
                yield None
