"""Where servers are, and what may be sent there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_vlm_ros.core import unsupported

_PATH = '/v1'


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One server.

    Attributes:
        url: Its base, without a slash at the end: 'https://a:8000/v1'.
        host: Of it.
        is_encrypted: It speaks https.
    """

    url: str
    host: str
    is_encrypted: bool

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, so that nothing on the way can listen."""
        if self.host == 'localhost':
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def may_have_key(self) -> bool:
        """Whether a key may be sent there: nobody on the way can read it."""
        return self.is_encrypted or self.is_loopback

    def __str__(self) -> str:
        return self.url


def read_servers(text: str) -> tuple[ServerAddress, ...]:
    """Read the addresses of servers, parted by commas or blanks.

    Raises:
        BadRequestError: There is none, or one is no address of a server, is there twice, or holds
            a password (UNSUPPORTED_OPTION).
    """
    found = [_read(url) for url in text.replace(',', ' ').split()]
    if not found:
        raise unsupported(
            'chip remote needs the address of a server: the option servers=http://HOST:PORT/v1'
        )
    urls = [server.url for server in found]
    twice = [url for url in urls if urls.count(url) > 1]
    if twice:
        raise unsupported(f'servers names {twice[0]} twice')
    return tuple(found)


def _read(url: str) -> ServerAddress:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise unsupported(f'{_shown(url)!r} is no address of a server: {error}') from error
    if parts.username is not None or parts.password is not None:
        raise unsupported(
            f'the address of {parts.hostname} holds a user or a password, and everyone reads '
            'parameters: name the key with api_key_env or api_key_file'
        )
    if parts.scheme not in {'http', 'https'} or not parts.hostname:
        raise unsupported(f'{url!r} is no address of a server: http://HOST:PORT/v1 or https://...')
    if parts.query or parts.fragment or port == 0:
        raise unsupported(f'{url!r} is no base address: nothing may follow the path')
    path = parts.path.rstrip('/') or _PATH
    return ServerAddress(
        f'{parts.scheme}://{parts.netloc}{path}', parts.hostname, parts.scheme == 'https'
    )


def _shown(url: str) -> str:
    """Return an address that could not be read, without what may be a password."""
    return url.rpartition('@')[2]
