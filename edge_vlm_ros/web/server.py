"""The HTTP server: one page, its socket, moving images. The only importer of aiohttp here.

No request names a file: the page's three are read at the start. What a request says of itself is
judged by `Guard` before anything else. `app['x'] = y` is not used: newer aiohttp warns of it, and
older ones have nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final

from aiohttp import WSMsgType, web

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.web import bounds
from edge_vlm_ros.web.feeds import moving
from edge_vlm_ros.web.guard import HEADERS, QUERY, Guard, Visit
from edge_vlm_ros.web.hub import Hub
from edge_vlm_ros.web.page_link import PageLink

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TYPES: Final = {'page.html': 'text/html', 'page.css': 'text/css', 'page.js': 'text/javascript'}
_BOUNDARY: Final = 'picture'


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: an address of this machine and a port; 0 = one that is free."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As a browser wants it."""
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'http://{host}:{self.port}/'


class WebServer:
    """Serves the page of one robot.

    Args:
        hub: What is served.
        guard: Who may come in.
    """

    def __init__(self, hub: Hub, guard: Guard) -> None:
        self._hub = hub
        self._guard = guard
        folder = resources.files('edge_vlm_ros.web').joinpath('assets')
        self._files = {name: folder.joinpath(name).read_bytes() for name in _TYPES}
        self._counts = {'pages': 0, 'streams': 0}
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serve(self, address: Address) -> AsyncIterator[Address]:
        """Serve within a block; give the address that is listened at.

        Raises:
            BadRequestError: The address cannot be listened at.
        """
        app = web.Application(
            middlewares=[self._middleware], client_max_size=bounds.MAX_BODY_BYTES
        )
        app.add_routes(
            [
                web.get('/', self._page),
                web.get('/{name:page\\.css|page\\.js}', self._asset),
                web.get('/camera/{name}', self._camera),
                web.get('/picture/{number:[0-9]{1,9}}/{index:[0-9]{1,4}}', self._picture),
                web.get('/case/{number:[0-9]{1,9}}.zip', self._case),
                web.get('/socket', self._socket),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address.host, address.port)
            try:
                await site.start()
            except OSError as error:
                raise BadRequestError(
                    f'cannot listen at {address.host} port {address.port}: {error.strerror} '
                    '(parameters web.host and web.port)'
                ) from error
            yield Address(address.host, runner.addresses[0][1])
        finally:
            # Open sockets and moving images never end by themselves.
            for task in self._tasks:
                task.cancel()
            await runner.cleanup()

    # --- coming in -------------------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        visit = Visit(
            host=request.headers.get('Host', ''),
            origin=request.headers.get('Origin', ''),
            cookie=request.cookies.get(self._guard.cookie_name, ''),
            token=request.query.get(QUERY, ''),
        )
        refusal = self._guard.refusal(visit)
        if refusal is not None:
            return web.Response(status=refusal.status, text=refusal.reason, headers=HEADERS)
        try:
            return await handler(request)
        except web.HTTPException as error:  # 404, 405, 413: aiohttp's own
            error.headers.update(HEADERS)
            raise

    @contextmanager
    def _counted(self, what: str, most: int) -> Iterator[None]:
        """Let in so many at once.

        Raises:
            HTTPServiceUnavailable: They are there.
        """
        if self._counts[what] >= most:
            raise web.HTTPServiceUnavailable(text=f'{most} {what} are open, which is the limit')
        self._counts[what] += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)
            self._counts[what] -= 1

    # --- what there is ---------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        response = self._file('page.html')
        if self._guard.is_token(request.query.get(QUERY, '')):
            response.set_cookie(
                self._guard.cookie_name,
                request.query[QUERY],
                httponly=True,
                samesite='Strict',
                path='/',
            )
        return response

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info['name'])

    def _file(self, name: str) -> web.Response:
        return web.Response(
            body=self._files[name], content_type=_TYPES[name], charset='utf-8', headers=HEADERS
        )

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        number, index = (int(request.match_info[part]) for part in ('number', 'index'))
        return _image(self._hub.cases.picture(number, index))

    async def _case(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info['number'])
        archive = self._hub.cases.archive(number)
        if archive is None:
            raise web.HTTPNotFound(text='this answer is not kept any more')
        headers = {**HEADERS, 'Content-Disposition': f'attachment; filename="case-{number}.zip"'}
        return web.Response(body=archive, content_type='application/zip', headers=headers)

    async def _camera(self, request: web.Request) -> web.StreamResponse:
        """Give a camera's pictures as they come, for as long as the browser takes them."""
        name = request.match_info['name']
        if name not in self._hub.camera_names:
            raise web.HTTPNotFound(text='there is no such camera')
        with self._counted('streams', bounds.MAX_STREAMS):
            response = web.StreamResponse(
                headers={
                    **HEADERS,
                    'Content-Type': f'multipart/x-mixed-replace; boundary={_BOUNDARY}',
                }
            )
            await response.prepare(request)
            feed = self._hub.feeds.look(name)
            try:
                async for picture in moving(feed):
                    if request.transport is None or request.transport.is_closing():
                        break
                    if picture is not None:
                        await asyncio.wait_for(
                            response.write(_part(picture.jpeg)), bounds.STALLED_S
                        )
            except (ConnectionError, asyncio.TimeoutError):
                _log.debug('a browser does not take the pictures of %s any more', name)
            finally:
                self._hub.feeds.leave(name)
        return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not request.headers.get('Origin'):
            # Every browser sends it here; what is none has no business with a cookie.
            return web.Response(status=403, text='a socket needs an Origin', headers=HEADERS)
        with self._counted('pages', bounds.MAX_PAGES):
            socket = web.WebSocketResponse(
                heartbeat=bounds.HEARTBEAT_S, max_msg_size=bounds.MAX_MESSAGE_BYTES
            )
            await socket.prepare(request)
            link = PageLink(self._hub)
            pump = asyncio.ensure_future(_pump(link, socket))
            try:
                async for message in socket:
                    if message.type == WSMsgType.TEXT:
                        link.take(message.data)
            finally:
                link.close()
                pump.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await pump
        return socket


async def _pump(link: PageLink, socket: web.WebSocketResponse) -> None:
    """Send what waits for a page until it is gone."""
    with contextlib.suppress(ConnectionError, RuntimeError):
        while True:
            await socket.send_str(await link.outbox.get())


def _image(jpeg: bytes | None) -> web.Response:
    """Return a picture.

    Raises:
        HTTPNotFound: There is none.
    """
    if jpeg is None:
        raise web.HTTPNotFound(text='this picture is not kept')
    return web.Response(body=jpeg, content_type='image/jpeg', headers=HEADERS)


def _part(jpeg: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'
    return head.encode() + jpeg + b'\r\n'
