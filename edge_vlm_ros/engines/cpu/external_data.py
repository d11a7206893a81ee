"""Where an ONNX file says that its weights lie: only beside it, never elsewhere.

A tensor may be kept in another file, named in the ONNX file. Such a name comes with the model and
could be `../../etc/passwd`, or a pipe that never ends. Newer ONNX Runtimes refuse what leaves the
folder, older ones read it. So the names are read here, with no library: only the messages on the
way to tensors are looked into.

Source: onnx/onnx, onnx/onnx.proto (field numbers), docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from edge_vlm_ros.core import ModelFileError, require_regular
from edge_vlm_ros.core.foreign_names import require_inside
from edge_vlm_ros.core.protobuf import message_fields

_LARGEST: Final = 1 << 41
_MOST_FIELDS: Final = 4_000_000
"""Read of one file; the largest published decoders have a tenth of it."""
_DEEPEST: Final = 64
_LOCATION: Final = b'location'

# Which fields of a message hold which messages.
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType({
    'Model': {7: 'Graph', 20: 'Training', 25: 'Function'},
    'Training': {1: 'Graph', 2: 'Graph'},
    'Function': {7: 'Node', 11: 'Attribute'},
    'Graph': {1: 'Node', 5: 'Tensor', 15: 'SparseTensor'},
    'Node': {5: 'Attribute'},
    'Attribute': {
        5: 'Tensor', 6: 'Graph', 10: 'Tensor', 11: 'Graph', 22: 'SparseTensor',
        23: 'SparseTensor',
    },
    'SparseTensor': {1: 'Tensor', 2: 'Tensor'},
    'Tensor': {13: 'Entry'},
})  # fmt: skip


def check_external_data(path: Path) -> None:
    """Refuse an ONNX file with weights outside its folder, or in something that is no file.

    Raises:
        ModelFileError: It is such a file, is damaged, or cannot be read.
    """
    require_regular(path, _LARGEST)
    try:
        names = set(_walk(np.memmap(path, np.uint8, 'r').data))
    except OSError as error:
        raise ModelFileError(f'{path}: cannot be read: {error.strerror or error}') from error
    except ValueError as error:  # an empty file, too
        raise ModelFileError(f'{path}: damaged, or no ONNX file: {error}') from error
    for name in sorted(names):
        require_regular(require_inside(path.parent, name, str(path)), _LARGEST)


def _walk(whole: memoryview) -> Iterator[str]:
    """Give the names of the files that tensors lie in."""
    pending: list[tuple[str, memoryview, int]] = [('Model', whole, 0)]
    count = 0
    while pending:
        kind, data, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError(f'nested more than {_DEEPEST} deep')
        inside = _MESSAGES[kind]
        for number, value in message_fields(data, 'an ONNX file'):
            count += 1
            if count > _MOST_FIELDS:
                raise ValueError(f'more than {_MOST_FIELDS} fields')
            found = inside.get(number)
            if found is None or isinstance(value, int):
                continue
            if found == 'Entry':
                yield from _location(value)
            else:
                pending.append((found, memoryview(value), depth + 1))


def _location(entry: bytes | memoryview) -> Iterator[str]:
    """Give the value of a pair whose key is `location`; of fields that come twice all count."""
    fields = list(message_fields(entry, 'an ONNX file'))
    if any(number == 1 and value == _LOCATION for number, value in fields):
        for number, value in fields:
            if number == 2 and not isinstance(value, int):
                yield bytes(value).decode('utf-8')
