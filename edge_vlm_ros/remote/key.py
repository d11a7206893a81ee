"""The key that servers want: named, never written in a parameter, never shown."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vlm_ros.core import ModelFileError, read_bounded, unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_vlm_ros.remote.addresses import ServerAddress
    from edge_vlm_ros.remote.options import RemoteOptions

_log = logging.getLogger(__name__)

_MOST_BYTES = 16 * 1024
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')


class Key:
    """A key; whoever prints it, or the object that holds it, sees stars."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return 'Key(***)'

    __str__ = __repr__

    @property
    def header(self) -> str:
        """The value of the header Authorization."""
        return f'Bearer {self._text}'

    def hidden_in(self, text: str) -> str:
        """Return a text without the key: a server may repeat what it was sent."""
        return text.replace(self._text, '***')


def read_key(options: RemoteOptions, servers: Iterable[ServerAddress]) -> Key | None:
    """Read the key from where the options say; None = they name none.

    Raises:
        BadRequestError: It is not there, is no key, or would go to a server in plain text
            (UNSUPPORTED_OPTION).
    """
    if options.api_key_env and options.api_key_file:
        raise unsupported('api_key_env and api_key_file both name a key: only one can be sent')
    if options.api_key_env:
        text, where = _from_environment(options.api_key_env)
    elif options.api_key_file:
        text, where = _from_file(Path(options.api_key_file).expanduser())
    else:
        return None
    if not text or not text.isascii() or not text.isprintable() or ' ' in text:
        raise unsupported(f'{where} holds no key: one line of letters, digits and signs')
    plain = [server.url for server in servers if not server.may_have_key]
    if plain:
        raise unsupported(
            f'the key would go to {", ".join(plain)} unencrypted, for everyone on the way to '
            'read: use https, or a server on this machine'
        )
    return Key(text)


def check_variable_name(name: str) -> None:
    """Refuse what can be no environment variable's name, without repeating it.

    Raises:
        BadRequestError: It is none; perhaps it is the key (UNSUPPORTED_OPTION).
    """
    if not _NAME.fullmatch(name):
        raise unsupported(
            f'api_key_env is the name of an environment variable; these {len(name)} characters '
            'are none: if they are the key, everyone on the ROS graph can read it now, and it has '
            'to be changed'
        )


def _from_environment(name: str) -> tuple[str, str]:
    check_variable_name(name)
    value = os.environ.get(name)
    if value is None:
        raise unsupported(f'api_key_env names {name}, which is not set where the model runs')
    return value.strip(), f'the environment variable {name}'


def _from_file(path: Path) -> tuple[str, str]:
    try:
        data = read_bounded(path, _MOST_BYTES)
    except ModelFileError as error:
        raise unsupported(f'api_key_file: {error.message}') from error
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning('%s holds a key and can be read by other users: chmod 600', path)
    lines = data.decode('utf-8', 'replace').strip().splitlines()
    return (lines[0].strip() if lines else ''), str(path)
