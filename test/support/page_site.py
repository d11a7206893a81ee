"""The page's server on a real port, with a robot that does what a test says, and clients of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from aiohttp import ClientSession, WSMsgType

from edge_vlm_ros.web import Guard, Hub
from edge_vlm_ros.web.server import Address, WebServer
from support.page_robot import PageRobot

_T = TypeVar('_T')

TOKEN: Final = 'sesame-sesame-sesame'
WAIT_S: Final = 30.0


class Visitor:
    """Reaches a server with its token.

    Args:
        url: Of the page.
        token: Whose cookie is sent.
        session: Sends.
    """

    def __init__(self, url: str, token: str, session: ClientSession) -> None:
        self.url = url
        self.host = url.removeprefix('http://').rstrip('/')
        self.session = session
        self.cookie_name = Guard(token, '127.0.0.1').cookie_name
        self.cookies = {'Cookie': f'{self.cookie_name}={token}'}

    def get(self, path: str, **headers: str) -> Any:
        """Begin a request with the token's cookie; use in `async with`."""
        return self.session.get(f'{self.url}{path}', headers={**self.cookies, **headers})

    @asynccontextmanager
    async def page(self, **headers: str) -> AsyncIterator[Page]:
        """Open a socket as a page does, and read what it is greeted with."""
        origin = {'Origin': self.url.rstrip('/'), **self.cookies, **headers}
        async with self.session.ws_connect(f'{self.url}socket', headers=origin) as socket:
            page = Page(socket)
            await page.hear('hello')
            await page.hear('state')
            yield page


class Page:
    """One socket.

    Attributes:
        last: The last message of each kind.
    """

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.last: dict[str, Any] = {}

    async def say(self, **message: object) -> None:
        """Send a message."""
        await self.socket.send_str(json.dumps(message))

    async def hear(self, *kinds: str) -> Any:
        """Return the next message of one of these kinds; others are passed over."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), WAIT_S)
            assert message.type is WSMsgType.TEXT, message
            found = json.loads(message.data)
            self.last[found['kind']] = found
            if found['kind'] in kinds:
                return found

    async def until(self, kind: str, condition: Callable[[Any], bool]) -> Any:
        """Wait until the last message of a kind is such a one; return it."""
        while kind not in self.last or not condition(self.last[kind]):
            await self.hear(kind)
        return self.last[kind]

    async def ask(self, given: str = 'q1', **fields: object) -> Any:
        """Ask, and wait until it is accepted."""
        await self.say(**{'kind': 'ask', 'id': given, 'question': 'what?', **fields})
        return await self.hear('accepted')


class Site(Visitor):
    """A server of this process, and its robot."""

    def __init__(
        self, url: str, session: ClientSession, robot: PageRobot, hub: Hub, server: WebServer
    ) -> None:
        super().__init__(url, TOKEN, session)
        self.robot = robot
        self.hub = hub
        self._server = server

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return what serves sockets and moving images."""
        return list(self._server._tasks)


@asynccontextmanager
async def serve(*, read_only: bool = False) -> AsyncIterator[Site]:
    """Serve within a block."""
    robot = PageRobot()
    hub = Hub(robot, read_only=read_only)
    server = WebServer(hub, Guard(TOKEN, '127.0.0.1'))
    async with server.serve(Address('127.0.0.1', 0)) as address, ClientSession() as session:
        yield Site(address.url, session, robot, hub, server)


async def next_picture(response: Any) -> bytes:
    """Return the next picture of a moving image."""
    size = 0
    while line := (await response.content.readline()).strip() or not size:
        if isinstance(line, bytes) and line.lower().startswith(b'content-length:'):
            size = int(line.partition(b':')[2])
    data: bytes = await response.content.readexactly(size)
    return data


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a test's coroutine to its end; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(coroutine, 2 * WAIT_S))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself; the test's own limit ends it."""
    while not condition():  # noqa: ASYNC110 (there is no event: it happens in a server)
        await asyncio.sleep(0.01)
