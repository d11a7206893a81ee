"""The fields of a protocol buffer's messages, without its library or any schema."""

from __future__ import annotations

from collections.abc import Iterator


def message_fields(
    data: bytes | memoryview, what: str = 'a message'
) -> Iterator[tuple[int, int | bytes | memoryview]]:
    """Read the fields of one message: numbers as int, all else as a slice of the data.

    Args:
        data: The message; of a memoryview nothing is copied.
        what: What it should be, for errors.

    Yields:
        Number and value, in the order of the file.

    Raises:
        ValueError: The bytes are no such message.
    """
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place, what)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place, what)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(data, place, what)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f'damaged, or not {what}')
        if place + size > end:
            raise ValueError('the file is cut short')
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes | memoryview, place: int, what: str) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise ValueError(f'the file is cut short, or not {what}')
