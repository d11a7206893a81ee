"""All pages that are open, and what they share: what the robot says, the cameras, the answers.

The robot is listened to from the first page to the last: with none open, nothing is spent.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from edge_vlm_ros.web.cases import Cases
from edge_vlm_ros.web.feeds import Feeds
from edge_vlm_ros.web.robot import (
    Diagnostics,
    Facts,
    News,
    Overheard,
    Robot,
    State,
    Watches,
    WatchEvent,
)

BEAT_S: Final = 1.0
"""How often pages hear how their cameras do."""
EVENTS_KEPT: Final = 50
"""Events of watches that a page which comes later still sees."""

Send = Callable[[Mapping[str, Any]], None]


class Hub:
    """What pages share. The loop's thread alone.

    Args:
        robot: Whose page it is.
        read_only: Nothing is asked, cancelled or forgotten from here.

    Attributes:
        feeds: The cameras.
        cases: The answers.
    """

    def __init__(self, robot: Robot, *, read_only: bool = False) -> None:
        self.robot: Final = robot
        self.read_only: Final = read_only
        self.feeds: Final = Feeds(robot)
        self.cases: Final = Cases()
        self._pages: dict[str, Send] = {}
        self._last: dict[type[News], News] = {}
        self._events: deque[WatchEvent] = deque(maxlen=EVENTS_KEPT)
        self._beat: asyncio.Task[None] | None = None
        self._run = secrets.token_hex(3)
        self._numbers = itertools.count(1)

    @property
    def facts(self) -> Facts:
        """What the robot is, as it said last."""
        found = self._last.get(Facts)
        return found if isinstance(found, Facts) else Facts()

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras that there are."""
        return tuple(camera.name for camera in self.facts.cameras)

    def enter(self, send: Send) -> str:
        """Have a page hear everything from now on; return what its request_ids begin with."""
        prefix = f'web-{self._run}-{next(self._numbers)}'
        for news in (*self._last.values(), *self._events):
            send(news.to_page())
        is_first = not self._pages
        self._pages[prefix] = send
        if is_first:
            self.robot.listen(self._hear)
            self._beat = asyncio.ensure_future(self._tell_of_cameras())
        return prefix

    def leave(self, prefix: str) -> None:
        """Have a page hear nothing more."""
        self._pages.pop(prefix, None)
        if self._pages:
            return
        self.robot.mute()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        # What was said may not hold any more when the next page comes; the facts say what can be
        # looked at until then.
        self._last = {kind: news for kind, news in self._last.items() if kind is Facts}

    def _hear(self, news: News) -> None:
        if not self._pages:
            return
        if isinstance(news, (Facts, State, Diagnostics, Watches)):
            self._last[type(news)] = news
        elif isinstance(news, WatchEvent):
            self._events.append(news)
        message = news.to_page()
        request_id = news.request_id if isinstance(news, Overheard) else ''
        for prefix, send in list(self._pages.items()):
            if not request_id.startswith(f'{prefix}-'):  # A page hears of its own otherwise.
                send(message)

    async def _tell_of_cameras(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            feeds = [asdict(facts) for facts in self.feeds.facts(self.camera_names)]
            for send in list(self._pages.values()):
                send({'kind': 'feeds', 'feeds': feeds})
