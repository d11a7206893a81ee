"""Fetch files from Sophgo's servers with the vendor's client, `dfss`, and unpack its zips.

The client (PyPI) takes `--url=open@sophgo.com:/path`, tries the servers it knows three times, puts
the file into the working directory under its last name and ends with 1 where that failed. It
knows no resuming and gives neither size nor hash: a file counts once the client has ended well and
it was moved to its place. Seen with dfss 1.10.9.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.core.foreign_names import require_inside, require_plain
from edge_vlm_ros.models.catalogue import RemoteFile

CLIENT = 'dfss'
_MISSING = "dfss, the vendor's client, is not installed (pip install dfss)"
# The client hands its arguments to a shell as they are.
_PLAIN = re.compile(r'[\w@:./+-]+')
_INCOMING = '.incoming'
_BLOCK = 1 << 20
_TEXT_SUFFIXES = ('.json', '.txt', '.model')
_LARGEST_TEXT = 100 << 20
_MOST_TEXTS = 100
_LARGEST_TEXTS = 400 << 20


def fetch_file(file: RemoteFile, folder: Path, say: Callable[[str], None]) -> None:
    """Bring one file into its place below a folder; one that is there already stays.

    Raises:
        ModelFileError: No client, no server, no room, or the file came damaged.
    """
    place = require_inside(folder, file.path, f'the row of {file.url}')
    if place.is_file() and _is_whole(file, place):
        say(f'{place} is here already')
        return
    came = _download(file.url, folder / _INCOMING, say)
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.is_packed:
        say(f'unpacking {came.name} ...')
        unpack_file(came, place)
        came.unlink()
    elif not _is_whole(file, came):
        came.unlink()
        raise ModelFileError(f"{file.url}: came with another size or hash than the catalogue's")
    else:
        came.replace(place)
    _remove_if_empty(folder / _INCOMING)


def fetch_tokenizer(
    archive: RemoteFile, folder: Path, to: Path, say: Callable[[str], None]
) -> None:
    """Bring the tokenizer and config.json of a zip into the folder `to`.

    Raises:
        ModelFileError: No client, no server, or the zip is damaged.
    """
    came = _download(archive.url, folder / _INCOMING, say)
    unpack_tokenizer(came, to)
    came.unlink()
    _remove_if_empty(folder / _INCOMING)


def _download(url: str, incoming: Path, say: Callable[[str], None]) -> Path:
    if importlib.util.find_spec(CLIENT) is None:
        raise ModelFileError(_MISSING)
    if not _PLAIN.fullmatch(url):
        raise ModelFileError(f'{url!r} is no address for {CLIENT}')
    came = incoming / require_plain(url.rpartition('/')[2], url)
    incoming.mkdir(parents=True, exist_ok=True)
    say(f'{url}, into {incoming.parent}')
    # Progress goes to the terminal; standard output is ours.
    command = [sys.executable, '-m', CLIENT, f'--url={url}']
    done = subprocess.run(command, cwd=incoming, stdout=sys.stderr, check=False)
    if done.returncode != 0 or not came.is_file() or not came.stat().st_size:
        came.unlink(missing_ok=True)
        _remove_if_empty(incoming)
        raise ModelFileError(f'{url}: {CLIENT} ended with {done.returncode} and brought no file')
    return came


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _is_whole(file: RemoteFile, path: Path) -> bool:
    if file.nbytes and path.stat().st_size != file.nbytes:
        return False
    if not file.sha256:
        return True
    running = hashlib.sha256()
    with path.open('rb') as opened:
        while block := opened.read(_BLOCK):
            running.update(block)
    return running.hexdigest() == file.sha256


def unpack_file(archive: Path, place: Path) -> None:
    """Take the one member of a zip that is named like `place`; nothing else is written.

    Raises:
        ModelFileError: The zip is damaged, holds no such file or several, or there is no room.
    """
    with _opened(archive) as packed:
        found = [member for member in _files(packed) if _last_name(member) == place.name]
        if len(found) != 1:
            count = 'no' if not found else str(len(found))
            raise ModelFileError(f'{archive.name} holds {count} {place.name}')
        free = shutil.disk_usage(place.parent).free
        if found[0].file_size > free:
            size = found[0].file_size
            raise ModelFileError(
                f'{place.parent}: {size / 1e6:,.0f} MB are to come, {free / 1e6:,.0f} MB are free'
            )
        _write(packed, found[0], place)


def unpack_tokenizer(archive: Path, folder: Path) -> None:
    """Take tokenizer and config.json of a zip into one folder, without the folders they lie in.

    Where a name comes twice, the one in a folder named after a tokenizer counts, then the one
    nearest to the top.

    Raises:
        ModelFileError: The zip is damaged or holds no config.json.
    """
    chosen: dict[str, zipfile.ZipInfo] = {}
    with _opened(archive) as packed:
        small = [
            member
            for member in _files(packed)
            if _last_name(member).endswith(_TEXT_SUFFIXES) and member.file_size <= _LARGEST_TEXT
        ]
        for member in sorted(small, key=_worst_last, reverse=True):
            chosen[_last_name(member)] = member
        for name in chosen:
            require_plain(name, archive.name)
        size = sum(member.file_size for member in chosen.values())
        if len(chosen) > _MOST_TEXTS or size > _LARGEST_TEXTS:
            raise ModelFileError(
                f'{archive.name} holds {len(chosen)} text files of {size} bytes, the limits are '
                f'{_MOST_TEXTS} and {_LARGEST_TEXTS}'
            )
        if 'config.json' not in chosen:
            raise ModelFileError(f'{archive.name} holds no config.json')
        folder.mkdir(parents=True, exist_ok=True)
        for name, member in chosen.items():
            _write(packed, member, folder / name)


def _worst_last(member: zipfile.ZipInfo) -> tuple[bool, int]:
    folders = member.filename.split('/')[:-1]
    return not any('token' in folder for folder in folders), len(folders)


def _files(packed: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [member for member in packed.infolist() if not member.is_dir()]


def _last_name(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition('/')[2]


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except Exception as error:  # of a damaged list of files: BadZipFile, UnicodeDecodeError, ...
        raise ModelFileError(f'{archive.name} is no zip: {error}') from error


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """Write one member; its checksum is tested on the way, the place changes only at the end."""
    part = place.with_name(f'{place.name}.part')
    try:
        # What lies there is not written through, should it be a link.
        part.unlink(missing_ok=True)
        with packed.open(member) as source, part.open('xb') as target:
            shutil.copyfileobj(source, target, _BLOCK)
        part.replace(place)
    except Exception as error:  # of damaged bytes, by compression: zlib.error, LZMAError, ...
        part.unlink(missing_ok=True)
        raise ModelFileError(f'{member.filename} of a zip: {error}') from error
