"""Files of a model's folder, read within bounds: they come from elsewhere and may mean harm.

A file may be a pipe that never ends, of any size, nested a million deep, or a few lines of YAML
whose aliases stand for billions of values. All of that is a `ModelFileError`, at once.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from edge_vlm_ros.core.errors import ModelFileError

MIB = 1 << 20
CONFIG_BYTES = 8 * MIB
"""Largest config.json and the like; the published ones have a few KiB."""
TOKENIZER_BYTES = 128 * MIB
"""Largest tokenizer.json or tokenizer.model; the published ones have up to 33 MiB."""
SCRIPT_BYTES = MIB // 4
"""Largest script or catalogue; reading YAML takes seconds a MiB."""
DEEPEST = 64
"""Levels of objects and lists in one another; the published files have up to ten."""
MOST_VALUES = 100_000
"""Values in one YAML file, each alias counted as what it stands for."""


def require_regular(path: Path, most_bytes: int) -> int:
    """Return a file's size.

    Raises:
        ModelFileError: It is missing, no regular file (a pipe, a device) or above the limit.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ModelFileError(f'{path}: no such file') from None
    except (OSError, ValueError) as error:
        raise ModelFileError(f'cannot read {path}: {_reason(error)}') from error
    _check(path, found, most_bytes)
    return found.st_size


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Read a whole file, if it is a regular one of at most so many bytes.

    Raises:
        ModelFileError: It is missing, cannot be read, is no regular file or above the limit.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes waits for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, 'rb') as file:  # noqa: PTH123 (of a descriptor)
            _check(path, os.fstat(descriptor), most_bytes)
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        raise ModelFileError(f'cannot read {path}: {_reason(error)}') from error
    if len(data) > most_bytes:  # It grew.
        raise _too_large(path, len(data), most_bytes)
    return data


def read_json_file(path: Path, most_bytes: int = CONFIG_BYTES) -> object:
    """Read a JSON file; numbers in it are finite.

    Raises:
        ModelFileError: As `read_bounded`, or it is no JSON, or nested too deep.
    """
    data = read_bounded(path, most_bytes)
    try:
        values = json.loads(data.decode('utf-8'), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f'{path} is damaged: {error}') from error
    check_depth(path, values)
    return values


def _check(path: Path, found: os.stat_result, most_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(f'cannot read {path}: it is no regular file')
    if found.st_size > most_bytes:
        raise _too_large(path, found.st_size, most_bytes)


def _too_large(path: Path, nbytes: int, most_bytes: int) -> ModelFileError:
    return ModelFileError(f'{path} has {nbytes} bytes, the limit is {most_bytes}')


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)


def _refuse(word: str) -> object:
    raise ValueError(f'{word} is no number')


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ValueError(f'{text[:40]} is no finite number')
    return value


def check_depth(path: Path, values: object) -> None:
    """Walk through all values of a file without recursion, each alias as what it stands for.

    Raises:
        ModelFileError: They are nested too deep, or too many.
    """
    limit = MOST_VALUES if path.suffix in {'.yaml', '.yml'} else CONFIG_BYTES
    pending, count = [(values, 0)], 1
    while pending:
        value, depth = pending.pop()
        if not isinstance(value, dict | list | tuple | set):
            continue
        inside = value.values() if isinstance(value, dict) else value
        count += len(value)
        if depth == DEEPEST or count > limit:
            raise ModelFileError(
                f'{path} is damaged: nested more than {DEEPEST} deep, or of more than {limit} '
                'values'
            )
        pending += [(each, depth + 1) for each in inside]
