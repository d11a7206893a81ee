"""The page's server on a real port, with a robot that does what a test says, and clients of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from aiohttp import ClientSession, WSMsgType

from edge_vlm_ros.web import Guard, Hub
from edge_vlm_ros.web.server import Address, WebServer
from support.page_robot import PageRobot

TOKEN = 'sesame-sesame-sesame'
WAIT_S = 30.0


class Site:
    """A server that serves, and how to reach it."""

    def __init__(self, *, robot, hub, guard, url, session, server):  # noqa: PLR0913 (keywords)
        self._server = server
        self.robot = robot
        self.hub = hub
        self.guard = guard
        self.url = url
        self.session = session
        self.host = url.removeprefix('http://').rstrip('/')
        self.cookies = {'Cookie': f'{guard.cookie_name}={TOKEN}'}

    def tasks(self):
        """Return what serves sockets and moving images."""
        return list(self._server._tasks)

    def get(self, path, **headers):
        """Begin a request with the token's cookie; use in `async with`."""
        return self.session.get(f'{self.url}{path}', headers={**self.cookies, **headers})

    @asynccontextmanager
    async def page(self, **headers):
        """Open a socket as a page does, and read its greeting."""
        origin = {'Origin': self.url.rstrip('/'), **self.cookies, **headers}
        async with self.session.ws_connect(f'{self.url}socket', headers=origin) as socket:
            page = Page(socket)
            assert (await page.hear('hello'))['read_only'] == self.hub.read_only
            await page.hear('state')
            yield page


class Page:
    """One socket."""

    def __init__(self, socket):
        self.socket = socket
        self.last = {}

    async def say(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def hear(self, *kinds):
        """Return the next message of one of these kinds; others are passed over."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), WAIT_S)
            assert message.type is WSMsgType.TEXT, message
            found = json.loads(message.data)
            self.last[found['kind']] = found
            if found['kind'] in kinds:
                return found

    async def until(self, kind, condition):
        """Wait until the last message of a kind is such a one; return it."""
        while kind not in self.last or not condition(self.last[kind]):
            await self.hear(kind)
        return self.last[kind]

    async def ask(self, given='q1', **fields):
        """Ask, and wait until it is accepted."""
        await self.say(**{'kind': 'ask', 'id': given, 'question': 'what?', **fields})
        return await self.hear('accepted')


@asynccontextmanager
async def serve(*, read_only=False, host='127.0.0.1', names=()):
    """Serve within a block."""
    robot = PageRobot()
    hub = Hub(robot, read_only=read_only)
    guard = Guard(TOKEN, host, names)
    server = WebServer(hub, guard)
    async with server.serve(Address(host, 0)) as address, ClientSession() as session:
        url = f'http://127.0.0.1:{address.port}/'
        yield Site(robot=robot, hub=hub, guard=guard, url=url, session=session, server=server)


def run(coroutine):
    """Run a test's coroutine to its end; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(coroutine, 2 * WAIT_S))


async def until(condition):
    """Wait for something that comes by itself; the test's own limit ends it."""
    while not condition():  # noqa: ASYNC110 (there is no event: it happens in a server)
        await asyncio.sleep(0.01)
