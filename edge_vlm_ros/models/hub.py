"""Fetch files of a Hugging Face repository, and check every one against the Hub's own hashes.

The only module that imports huggingface_hub, and only when something is fetched. The client
resumes what broke off, leaves what is there already, and reads HF_ENDPOINT, HF_TOKEN and
HF_HUB_OFFLINE from the environment.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.core.foreign_names import require_commit, require_inside, require_relative
from edge_vlm_ros.models.catalogue import HubFiles

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_BLOCK = 1 << 20
_MOST_FILES = 100_000
_MISSING = 'huggingface_hub is not installed (pip install huggingface_hub)'


def fetch_from_hub(wanted: HubFiles, folder: Path, say: Callable[[str], None]) -> None:
    """Bring the wanted files of a repository into a folder.

    Args:
        wanted: Repository, revision and patterns.
        folder: Where they go, with the folders of the repository.
        say: Gets a line now and then.

    Raises:
        ModelFileError: No client, no network, no licence, no room, a file came damaged, or the
            server's list holds a name that leaves the folder: then nothing was done.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelFileError(_MISSING) from error
    repository, revision = wanted.repository, wanted.revision or None
    try:
        info = huggingface_hub.HfApi().model_info(
            repository, revision=revision, files_metadata=True
        )
        commit = require_commit(info.sha, repository)
        files = _wanted_files(info.siblings or [], wanted)
        for file in files:
            require_inside(folder, file.rfilename, repository)
        _require_room(files, folder)
        say(f'{repository}: {len(files)} files, {_size_of(files) / 1e6:,.1f} MB, into {folder}')
        huggingface_hub.snapshot_download(
            repository,
            revision=commit,
            local_dir=folder,
            # The client asks for the list again and takes these for patterns.
            allow_patterns=[glob.escape(file.rfilename) for file in files],
        )
    except ModelFileError:
        raise
    except Exception as error:
        # The client's errors come from whatever HTTP library this version of it uses.
        raise ModelFileError(f'{repository}: {_reason(error)}') from error
    _check(repository, files, folder, say)


def _wanted_files(siblings: list[RepoSibling], wanted: HubFiles) -> list[RepoSibling]:
    if len(siblings) > _MOST_FILES:
        raise ModelFileError(
            f'{wanted.repository} lists {len(siblings)} files, the limit is {_MOST_FILES}'
        )
    # Also those that are not wanted: a list with one such name is not to be trusted at all.
    for file in siblings:
        require_relative(file.rfilename, wanted.repository)
    patterns = wanted.patterns or ('*',)
    files = [
        file
        for file in siblings
        if any(fnmatchcase(file.rfilename, pattern) for pattern in patterns)
    ]
    if not files:
        raise ModelFileError(
            f'{wanted.repository} holds no {", ".join(wanted.patterns)}'
            f'{" at " + wanted.revision if wanted.revision else ""}'
        )
    return files


def _size_of(files: list[RepoSibling]) -> int:
    return sum(file.size or 0 for file in files)


def _require_room(files: list[RepoSibling], folder: Path) -> None:
    absent = [file for file in files if not (folder / file.rfilename).is_file()]
    size, free = _size_of(absent), shutil.disk_usage(folder).free
    if size > free:
        raise ModelFileError(
            f'{folder}: {size / 1e6:,.0f} MB are to come, {free / 1e6:,.0f} MB are free'
        )


def _reason(error: Exception) -> str:
    """Say in one line why the client gave up."""
    first = ' '.join(str(error).split())
    if 'Gated' in type(error).__name__:
        return (
            'its licence has to be accepted on its web page by the account whose token is in'
            f" HF_TOKEN or was given to 'hf auth login' ({first[:200]})"
        )
    return f'{type(error).__name__}: {first[:300]}'


def _check(
    repository: str, files: list[RepoSibling], folder: Path, say: Callable[[str], None]
) -> None:
    """Compare what came with the Hub's sizes and hashes; a damaged file is taken away.

    Raises:
        ModelFileError: A file is not as it should be.
    """
    damaged = [file.rfilename for file in files if not _is_whole(file, folder / file.rfilename)]
    for name in damaged:
        require_inside(folder, name, repository).unlink(missing_ok=True)
    if damaged:
        raise ModelFileError(
            f'{repository}: came damaged and was taken away, fetch again: {", ".join(damaged)}'
        )
    say(f'{repository}: sizes and hashes are right')


def _is_whole(file: RepoSibling, path: Path) -> bool:
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    if file.lfs is not None:
        return _digest(path, hashlib.sha256()) == file.lfs.sha256
    if file.blob_id:
        # Git's own name of a file's content, which the Hub gives for small files.
        head = f'blob {path.stat().st_size}\0'.encode()
        return _digest(path, hashlib.sha1(head, usedforsecurity=False)) == file.blob_id
    return True


def _digest(path: Path, running: Any) -> str:
    with path.open('rb') as file:
        while block := file.read(_BLOCK):
            running.update(block)
    return str(running.hexdigest())
