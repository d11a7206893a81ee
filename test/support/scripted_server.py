"""An OpenAI-compatible server that does what a test says: the right things, and each wrong one.

Real sockets on loopback, in a thread of the test's process. What was asked is kept.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web
from multidict import CIMultiDict

from support.patience import Patience

Reply: TypeAlias = 'Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]'

MODEL = 'scripted-vlm'


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    body: dict[str, Any]
    headers: CIMultiDict[str]
    raw: bytes
    is_closed: bool = False

    @property
    def texts(self) -> list[str]:
        """The texts of all messages."""
        return [text for message in self.body['messages'] for text in texts_of(message)]

    @property
    def urls(self) -> list[str]:
        """The addresses of all images."""
        parts = [part for message in self.body['messages'] for part in parts_of(message)]
        return [part['image_url']['url'] for part in parts if part['type'] == 'image_url']


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a message's content."""
    content = message['content']
    return [{'type': 'text', 'text': content}] if isinstance(content, str) else content


def texts_of(message: dict[str, Any]) -> list[str]:
    """Return its texts."""
    return [part['text'] for part in parts_of(message) if part['type'] == 'text']


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk as vLLM sends it."""
    delta = {} if text is None else {'content': text}
    choice = {'index': 0, 'delta': delta, 'finish_reason': finish, **more.pop('choice', {})}
    return {'object': 'chat.completion.chunk', 'model': MODEL, 'choices': [choice], **more}


def usage(prompt: int, answer: int, cached: int = 0) -> dict[str, Any]:
    """Return a chunk that only counts."""
    details = {'prompt_tokens_details': {'cached_tokens': cached}}
    counts = {'prompt_tokens': prompt, 'completion_tokens': answer, **details}
    return {'object': 'chat.completion.chunk', 'choices': [], 'usage': counts}


def lines(*events: dict[str, Any], done: bool = True) -> bytes:
    """Return events as they are sent."""
    sent = b''.join(b'data: ' + json.dumps(event).encode() + b'\n\n' for event in events)
    return sent + (b'data: [DONE]\n\n' if done else b'')


def stream(*parts: bytes | float, headers: dict[str, str] | None = None) -> Reply:
    """Reply with these bytes; a number is a pause in seconds, `CUT` breaks the connection."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={'Content-Type': 'text/event-stream; charset=utf-8', **(headers or {})}
        )
        await response.prepare(request)
        for part in parts:
            if isinstance(part, bytes):
                if part == CUT:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                await response.write(part)
            else:
                await asyncio.sleep(part)
        return response

    return reply


CUT = b'\x00cut'
SILENCE_S = 3600.0


def words(text: str, *, finish: str = 'stop') -> Reply:
    """Reply with a whole answer, a chunk for each word."""
    pieces = [text] if ' ' not in text else [f'{word} ' for word in text.split(' ')]
    pieces[-1] = pieces[-1].rstrip(' ')
    events = [chunk(piece) for piece in pieces]
    return stream(lines(chunk(''), *events, chunk(finish=finish), usage(64, len(pieces))))


def status(
    code: int, body: Any = None, *, headers: dict[str, str] | None = None, kind: str = ''
) -> Reply:
    """Reply with a status; a text is sent as it stands, all else as JSON."""

    async def reply(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        kinds = 'text/plain' if isinstance(body, str) else 'application/json'
        return web.Response(
            status=code, text=text, content_type=kind or kinds, headers=headers or {}
        )

    return reply


def endless(pause_s: float = 0.01) -> Reply:
    """Reply with words without end, no two the same."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={'Content-Type': 'text/event-stream'})
        await response.prepare(request)
        for number in range(10**9):
            await response.write(lines(chunk(f'w{number} '), done=False))
            await asyncio.sleep(pause_s)
        return response

    return reply


def echo() -> Reply:
    """Reply with the last question; one that holds 'long' is answered without end."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        asked = texts_of(body['messages'][-1])[-1]
        answer = endless() if 'long' in asked else words(f'You asked: {asked}')
        return await answer(request, body)

    return reply


@dataclass
class ScriptedServer:
    """A server; use it as a context.

    Attributes:
        replies: What it does, one after the other; the last one again and again.
        models: What /v1/models says; a `Reply` decides for itself.
        key: That it wants; '' = none.
        tls: For https.
    """

    replies: Iterable[Reply] = ()
    models: Any = field(default_factory=lambda: {'data': [{'id': MODEL, 'object': 'model'}]})
    key: str = ''
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    looks: int = 0
    port: int = 0

    def __enter__(self) -> ScriptedServer:  # noqa: PYI034 (Self comes with Python 3.11)
        self._replies = list(self.replies) or [echo()]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Its base address."""
        return f'http{"s" if self.tls else ""}://127.0.0.1:{self.port}/v1'

    def then(self, *replies: Reply) -> None:
        """From now on, do this."""
        self._replies = list(replies)

    def stop(self) -> None:
        """Close the port and every connection; `start` opens them again."""
        self._do(self._stop())

    def start(self) -> None:
        """Open the same port again."""
        self._do(self._start())

    def until(self, is_so: Callable[[], bool], limit_s: float = 20.0) -> None:
        """Wait until something is so."""
        patience = Patience(limit_s)
        while not is_so():
            assert not patience.is_over(), 'it did not come about'
            patience.look()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post('/v1/chat/completions', self._complete)
        app.router.add_get('/v1/models', self._list)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, '127.0.0.1', self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()

    def _refused(self, request: web.Request) -> web.StreamResponse | None:
        if self.key and request.headers.get('Authorization') != f'Bearer {self.key}':
            error = {'message': 'Invalid API Key', 'type': 'authentication_error', 'code': 401}
            return web.json_response({'error': error}, status=401)
        return None

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.looks += 1
        refused = self._refused(request)
        if refused is not None:
            return refused
        if callable(self.models):
            found: web.StreamResponse = await self.models(request, {})
            return found
        return web.json_response(self.models)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        asked = Asked(json.loads(raw), CIMultiDict(request.headers), raw)
        refused = self._refused(request)
        if refused is not None:
            return refused
        self.asked.append(asked)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        try:
            return await reply(request, asked.body)
        except (asyncio.CancelledError, ConnectionError):
            asked.is_closed = True
            raise
