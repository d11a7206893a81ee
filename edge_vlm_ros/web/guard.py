"""Who may come in: the name the page is called by, where a request comes from, and the token.

A page on 127.0.0.1 is reached by every page that the browser has open, and what they may do there
the browser decides by names. So three things are looked at, for every request:

* *Host*: a name that is known. Any domain can be made to point at 127.0.0.1 (DNS rebinding), and
  its pages then count as ours, but for the name.
* *Origin*, where there is one: it has that very name. Browsers let any page open a WebSocket
  anywhere, and only say which page it was.
* the token, in the address once and in a cookie from then on.

Sources: RFC 6454 (Origin), RFC 6265bis (SameSite), the Fetch standard (Origin of WebSockets).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.web import bounds

HEADERS: Final[Mapping[str, str]] = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}
"""Of every response. Nothing is loaded from elsewhere, nothing of ours is shown elsewhere."""

QUERY: Final = 'token'
_LOOPBACK: Final = frozenset({'localhost', '127.0.0.1', '::1'})
_ANY: Final = frozenset({'0.0.0.0', '::'})  # noqa: S104 (compared with, not bound to)


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request says of itself; '' where it says nothing.

    Attributes:
        host: Header Host.
        origin: Header Origin.
        cookie: Of the guard's name.
        token: In the query.
    """

    host: str
    origin: str = ''
    cookie: str = ''
    token: str = ''


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served: an HTTP status, and a sentence for people."""

    status: int
    reason: str


class Guard:
    """Judges requests.

    Args:
        token: The secret; at least `MIN_TOKEN_CHARS` long.
        host: The address that is listened at.
        names: Further names that the page is called by, such as a proxy's.
    """

    def __init__(self, token: str, host: str, names: Iterable[str] = ()) -> None:
        self._token = token.encode()
        self._takes_addresses = host in _ANY
        own = {host.lower(), *(name.lower() for name in names)} - _ANY
        if host in _LOOPBACK:
            own |= _LOOPBACK
        else:
            machine = socket.gethostname().lower()
            own |= {machine, f'{machine.partition(".")[0]}.local'}
            own |= _LOOPBACK if self._takes_addresses else set()
        self.names: Final = frozenset(own)
        digest = hashlib.sha256(self._token).hexdigest()
        # Cookies know no ports: two robots behind two ports of one machine have one each.
        self.cookie_name: Final = f'edge_vlm_{digest[:12]}'

    def refusal(self, visit: Visit) -> Refusal | None:
        """Return why a request is not served; None = it is."""
        if not self._knows(visit.host):
            return Refusal(403, f'unknown Host {visit.host[:80]!r} (parameter web.names)')
        if visit.origin and urlsplit_netloc(visit.origin) != visit.host.lower():
            return Refusal(403, f'foreign Origin {visit.origin[:80]!r}')
        given = visit.token or visit.cookie
        if not self.is_token(given):
            return Refusal(
                401,
                'The token is missing or wrong. Open the address that the page was started with: '
                'it ends in ?token=...',
            )
        return None

    def is_token(self, given: str) -> bool:
        """Return whether somebody knows the token; takes as long whatever is given."""
        return hmac.compare_digest(given.encode('utf-8', 'replace'), self._token)

    def _knows(self, host: str) -> bool:
        name = _host_name(host)
        if name in self.names:
            return True
        # Rebinding takes a name: no domain is an address.
        return self._takes_addresses and _is_address(name)


def urlsplit_netloc(origin: str) -> str:
    """Return the host and port of an Origin; '' = it is none, such as 'null'."""
    try:
        split = urlsplit(origin)
    except ValueError:
        return ''
    return split.netloc.lower() if split.scheme in {'http', 'https'} else ''


def new_token() -> str:
    """Make up a token."""
    return secrets.token_urlsafe(24)


def read_token(path: str) -> str:
    """Read a token: the first line of a file.

    Raises:
        BadRequestError: There is no such file, or what it holds is too short to be a secret.
    """
    try:
        with Path(path).expanduser().open(encoding='utf-8') as file:
            token = file.readline(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, 'strerror', None) or 'it is no text'
        raise BadRequestError(f'cannot read the token in {path}: {what}') from error
    if len(token) < bounds.MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise BadRequestError(
            f'the first line of {path} has {len(token)} characters; a token has at least '
            f'{bounds.MIN_TOKEN_CHARS} printable ASCII ones (python3 -c "import secrets; '
            f'print(secrets.token_urlsafe())")'
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    return host in _LOOPBACK or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return (urlsplit(f'//{host}').hostname or '').lower()
    except ValueError:
        return ''


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
