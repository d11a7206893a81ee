"""The sockets: requests to servers, and what comes back. The only importer of aiohttp.

A connection is closed as soon as its answer is not wanted any more: that is how servers are told.
Nothing is followed (no redirects), kept (no cookies) or taken from the environment, but for
proxies where that is asked for.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from edge_vlm_ros.core import unsupported
from edge_vlm_ros.remote.errors import Fault, FaultError, fault_of, quoted, unreachable
from edge_vlm_ros.remote.servers import ServerFacts

if TYPE_CHECKING:
    from edge_vlm_ros.remote.addresses import ServerAddress
    from edge_vlm_ros.remote.key import Key

MAX_BODY_BYTES: Final = 1 << 20
"""Most that is read of a response that is no stream."""

_STREAM = 'text/event-stream'


class Body(Protocol):
    """A stream of bytes that comes from a server."""

    async def read(self) -> bytes:
        """Return what has come, at least a byte; b'' = it is over.

        Raises:
            FaultError: The connection broke.
        """
        ...


class ServerClient:
    """Speaks to servers; belongs to one asyncio loop, from `start` to `close`.

    Args:
        key: Sent to each of them; None = none.
        ca_file: Certificates that they are verified with; '' = the system's own.
        proxy_from_env: Go through the proxies that the environment names.
        connect_s: A connection stands within so long, seconds, or there is none.

    Raises:
        BadRequestError: `ca_file` holds no certificates (UNSUPPORTED_OPTION).
    """

    def __init__(
        self, *, key: Key | None, ca_file: str, proxy_from_env: bool, connect_s: float
    ) -> None:
        self._key = key
        self._proxies = urllib.request.getproxies() if proxy_from_env else {}
        self._connect_s = connect_s
        try:
            self._tls = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise unsupported(f'ca_file {ca_file} holds no certificates: {error}') from error
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make ready to send."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
            headers={'Accept-Encoding': 'identity', 'User-Agent': 'edge_vlm_ros'},
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def stream(
        self, server: ServerAddress, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[Body]:
        """Ask for a chat completion; the connection is closed at the end of the block.

        Args:
            server: Where.
            body: JSON.
            headers: Further ones.

        Raises:
            FaultError: There is no server, or it does not begin to stream.
        """
        url = f'{server.url}/chat/completions'
        more = {'Content-Type': 'application/json', 'Accept': _STREAM, **headers}
        async with self._response('POST', server, url, data=body, headers=more) as response:
            if response.status != 200 or response.content_type != _STREAM:
                raise FaultError(self._no_stream(response, await _read_bounded(response)))
            yield _Body(response)

    async def look(self, server: ServerAddress, timeout_s: float) -> ServerFacts:
        """Ask a server which models it has.

        Raises:
            FaultError: It does not say.
        """

        async def ask() -> ServerFacts:
            url = f'{server.url}/models'
            async with self._response('GET', server, url) as response:
                body = await _read_bounded(response)
                if response.status != 200:
                    raise FaultError(self._fault(response, body))
                return _facts(body)

        try:
            return await asyncio.wait_for(ask(), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            raise FaultError(unreachable(f'said nothing for {timeout_s:g} s')) from None

    @asynccontextmanager
    async def _response(
        self, method: str, server: ServerAddress, url: str, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, 'not started'
        headers = dict(more.pop('headers', {}))
        if self._key is not None and server.may_have_key:
            headers['Authorization'] = self._key.header
        try:
            response = await self._session.request(
                method,
                url,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy(server),
                **more,
            )
        except (aiohttp.ClientError, asyncio.TimeoutError, TimeoutError, OSError) as error:
            raise FaultError(unreachable(self._reason(error))) from error
        try:
            yield response
        finally:
            response.close()

    def without_key(self, fault: Fault) -> Fault:
        """Return a fault whose message does not repeat the key."""
        return replace(fault, message=self._hidden(fault.message))

    def _proxy(self, server: ServerAddress) -> str | None:
        """Return the proxy for a server; to one on this machine, what is sent stays on it."""
        parts = urlsplit(server.url)
        if server.is_loopback or urllib.request.proxy_bypass(parts.netloc):
            return None
        return self._proxies.get(parts.scheme)

    def _no_stream(self, response: aiohttp.ClientResponse, body: bytes) -> Fault:
        """Say what a response means that is no stream of events."""
        if response.status != 200:
            return self._fault(response, body)
        fault = self._fault(response, body)
        said = fault.message.partition(': ')[2]
        words = f'answered with {response.content_type or "nothing known"}, not with a stream'
        return unreachable(f'{words}: {said}' if said else words)

    def _fault(self, response: aiohttp.ClientResponse, body: bytes) -> Fault:
        fault = fault_of(response.status, body, response.headers.get('Retry-After', ''))
        where = quoted(response.headers.get('Location', ''))
        words = f'{fault.message}, moved to {where}' if where else fault.message
        return self.without_key(replace(fault, message=words))

    def _hidden(self, text: str) -> str:
        return text if self._key is None else self._key.hidden_in(text)

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return f'its certificate is not trusted: {quoted(str(error.certificate_error))}'
        if isinstance(error, asyncio.TimeoutError | TimeoutError):
            return f'no connection within {self._connect_s:g} s'
        return self._hidden(quoted(str(error) or type(error).__name__))


class _Body:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            reason = quoted(str(error) or type(error).__name__)
            raise FaultError(unreachable(f'the connection broke: {reason}')) from error


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of a body, `MAX_BODY_BYTES` at most."""
    parts: list[bytes] = []
    size = 0
    body = _Body(response)
    while size < MAX_BODY_BYTES and (data := await body.read()):
        parts.append(data)
        size += len(data)
    return b''.join(parts)[:MAX_BODY_BYTES]


def _facts(body: bytes) -> ServerFacts:
    """Read a list of models: OpenAI's, with what vLLM and llama.cpp add to it.

    Raises:
        FaultError: It is none.
    """
    try:
        listed = json.loads(body.decode('utf-8', 'replace'))['data']
        models = [entry for entry in listed if isinstance(entry['id'], str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = quoted(body.decode('utf-8', 'replace'))
        raise FaultError(unreachable(f'lists no models: {said}')) from None
    contexts = {entry['id']: _context(entry) for entry in models}
    return ServerFacts(
        tuple(entry['id'] for entry in models), {name: n for name, n in contexts.items() if n}
    )


def _context(entry: dict[str, Any]) -> int:
    meta = entry.get('meta')
    found = entry.get('max_model_len') or (meta.get('n_ctx') if isinstance(meta, dict) else 0)
    return found if isinstance(found, int) and found > 0 else 0
