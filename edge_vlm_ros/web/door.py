"""The way in: which token is asked for, and what is said of it at the start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_vlm_ros.web.guard import QUERY, Guard, is_loopback, new_token, read_token


@dataclass(frozen=True, slots=True)
class Door:
    """Who guards it, and how people get in.

    Attributes:
        guard: Judges requests.
        token: That was made up; '' = it stands in a file, and nowhere else.
        token_file: That file.
        host: The address that is listened at.
    """

    guard: Guard
    token: str
    token_file: str
    host: str

    def announcement(self, url: str) -> list[str]:
        """Return what to say at the start, line by line.

        Args:
            url: Of the page.
        """
        way = f'?{QUERY}={self.token}' if self.token else f'?{QUERY}=... (from {self.token_file})'
        lines = [f'the page is at {url}{way}']
        if not is_loopback(self.host):
            lines.append(
                'it is served to the network, unencrypted: whoever knows the token sees the '
                'cameras and can ask'
            )
        return lines


def open_door(host: str, names: Iterable[str], token_file: str) -> Door:
    """Make up or read the token, and set a guard.

    Args:
        host: The address that is listened at.
        names: Further names that the page is called by.
        token_file: '' = the token is made up.

    Raises:
        BadRequestError: The file holds no token.
    """
    token = read_token(token_file) if token_file else new_token()
    return Door(Guard(token, host, names), '' if token_file else token, token_file, host)
