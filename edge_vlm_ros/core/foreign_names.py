"""Names that a server, an archive or a catalogue gives to files: where they may lie.

They are untrusted until they have passed here, before anything is read, written or removed: a
server that lists `../../../x` must not reach the file of that name, nor one that lists `a/x`
where the user's `a` is a link to another folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_vlm_ros.core.errors import ModelFileError

_LONGEST_PART_BYTES = 255  # NAME_MAX of Linux
_LONGEST_BYTES = 1024
_DRIVE = re.compile(r'[A-Za-z]:')
_REPOSITORY = re.compile(r'[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}', re.ASCII)
_REVISION = re.compile(r'[A-Za-z0-9][\w./-]{0,127}', re.ASCII)
_COMMIT = re.compile(r'[0-9a-f]{40}([0-9a-f]{24})?')


def require_relative(name: object, origin: str) -> str:
    """Return a name that stays below the folder it is joined to.

    Args:
        name: With '/' between its parts.
        origin: Whose it is, for messages: a repository, an archive, a catalogue.

    Raises:
        ModelFileError: It is absolute, leaves the folder or names the folder itself, has a drive
            letter, a backslash or a character that does not print, or is too long.
    """
    fault = _fault_of(name)
    if fault or not isinstance(name, str):
        raise ModelFileError(f'{origin} names a file {_shown(name)}: {fault}; nothing was changed')
    return name


def require_plain(name: object, origin: str) -> str:
    """Return a name of one part; otherwise as `require_relative`."""
    plain = require_relative(name, origin)
    if '/' in plain:
        raise ModelFileError(f'{origin} names {_shown(name)}: it has a / in it')
    return plain


def require_inside(folder: Path, name: str, origin: str) -> Path:
    """Return the place of a name below a folder, whatever links lie on the way to it.

    The place itself may be a link, for it is replaced or removed as such.

    Raises:
        ModelFileError: The name leaves the folder, by itself or through a linked folder.
    """
    place = folder / require_relative(name, origin)
    if not place.parent.resolve().is_relative_to(folder.resolve()):
        raise ModelFileError(
            f'{origin} names a file {_shown(name)}, and {place.parent} is a link that leads out '
            f'of {folder}; nothing was changed'
        )
    return place


def require_repository(name: object, origin: str) -> str:
    """Return the name of a repository, 'owner/name'.

    Raises:
        ModelFileError: It is of another form.
    """
    if not isinstance(name, str) or not _REPOSITORY.fullmatch(name) or '..' in name:
        raise ModelFileError(f'{origin}: {_shown(name)} is no repository of the form owner/name')
    return name


def require_revision(name: object, origin: str) -> str:
    """Return a branch, tag or commit.

    Raises:
        ModelFileError: It could be taken for something else.
    """
    if not isinstance(name, str) or not _REVISION.fullmatch(name) or _fault_of(name):
        raise ModelFileError(f'{origin}: {_shown(name)} is no revision')
    return name


def require_commit(name: object, origin: str) -> str:
    """Return the full hash of a commit; the client makes file names of it.

    Raises:
        ModelFileError: It is none.
    """
    if not isinstance(name, str) or not _COMMIT.fullmatch(name):
        raise ModelFileError(f'{origin}: {_shown(name)} is no commit; nothing was changed')
    return name


def _fault_of(name: object) -> str:
    """Say what is wrong with a name; '' for nothing."""
    if not isinstance(name, str):
        return 'it is no text'
    parts = name.split('/')
    faults = {
        'it holds characters that do not print': not name.isprintable(),
        'it holds a backslash': '\\' in name,
        'it is absolute': name.startswith('/'),
        'it has a drive letter': any(map(_DRIVE.match, parts)),
        "it has a part that is empty, '.' or '..'": not {'', '.', '..'}.isdisjoint(parts),
    }
    fault = next((fault for fault, is_there in faults.items() if is_there), '')
    return fault or _too_long(name, parts)


def _too_long(name: str, parts: list[str]) -> str:
    longest, size = max(len(part.encode()) for part in parts), len(name.encode())
    if longest <= _LONGEST_PART_BYTES and size <= _LONGEST_BYTES:
        return ''
    return (
        f'it has {size} bytes, {longest} of them in one part; the limits are {_LONGEST_BYTES} '
        f'and {_LONGEST_PART_BYTES}'
    )


def _shown(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 100 else f'{text[:97]}...'
