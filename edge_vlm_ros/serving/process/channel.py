"""A connection that carries messages between the two processes, pixels without needless copies.

Messages are pickled with protocol 5; the bytes of images travel beside the pickle, straight from
whatever holds them (bytes, array.array, memoryview, numpy) into one buffer at the other end.
A plain socket, not `multiprocessing.Connection`: that one gathers what it reads piece by piece and
copies the whole twice.

Frame: uint32 number of parts, uint64 bytes of each part (big-endian), the parts. The first part is
the pickle.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import socket
import struct
import threading
from typing import Any

from edge_vlm_ros.core import CompressedImage, RawImage

_BUFFER_BYTES = 4 * 2**20
_MOST_PARTS = 4096
_MOST_BYTES = 2**32
_COUNT_BYTES = 4
_SIZE_BYTES = 8


class GarbledError(Exception):
    """What came is no message: the other end has lost its senses, or other code wrote there."""


class _Pickler(pickle.Pickler):
    """Sets the bytes of images aside, also those that pickle would copy or refuse."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, RawImage):
            size = (value.encoding, value.width, value.height, value.step)
            return RawImage, (*size, _outside(value.data), value.is_bigendian, value.range16)
        if isinstance(value, CompressedImage):
            return CompressedImage, (value.format, _outside(value.data), value.range16)
        return NotImplemented


def _outside(data: Any) -> object:
    """Mark bytes to travel beside the pickle."""
    try:
        view = memoryview(data)
    except TypeError:  # A list of numbers, say.
        return pickle.PickleBuffer(bytes(data))
    return pickle.PickleBuffer(view if view.c_contiguous else view.tobytes())


class _Incoming:
    """A message as far as it has come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytearray] = []
        self._sizes: tuple[int, ...] | None = None
        self._want(_COUNT_BYTES)

    def _want(self, size: int) -> None:
        self._data = bytearray(size)
        self._left = memoryview(self._data)

    def read(self, flags: int) -> bool:
        """Read once from the socket; return whether the message is whole.

        Raises:
            BlockingIOError: Nothing is there (with MSG_DONTWAIT).
            EOFError: The other end is gone.
            GarbledError: This is no message.
        """
        if self._left:
            taken = self._connection.recv_into(self._left, 0, flags)
            if not taken:
                raise EOFError('the other end is gone')
            self._left = self._left[taken:]
        return not self._left and self._go_on()

    def _go_on(self) -> bool:
        """Act on a piece that is whole; return whether it was the message's last."""
        data = self._data
        if self._sizes is not None:
            self._parts.append(data)
        elif len(data) == _COUNT_BYTES:
            (count,) = struct.unpack('!I', data)
            if not 0 < count <= _MOST_PARTS:
                raise GarbledError(f'a message of {count} parts')
            self._want(_SIZE_BYTES * count)
            return False
        else:
            self._sizes = struct.unpack(f'!{len(data) // _SIZE_BYTES}Q', data)
            if sum(self._sizes) > _MOST_BYTES:
                raise GarbledError(f'a message of {sum(self._sizes)} bytes')
        if len(self._parts) == len(self._sizes):
            return True
        self._want(self._sizes[len(self._parts)])
        return False

    def take(self) -> Any:
        """Return the message that is whole; the next one begins."""
        head, *buffers = self._parts
        self._begin()
        try:
            return pickle.loads(head, buffers=buffers)  # noqa: S301 (from our own other end)
        except Exception as error:  # whatever bytes make of it
            raise GarbledError(f'{type(error).__name__}: {error}') from error


class Channel:
    """One end of a connection. One thread receives; any thread sends.

    Args:
        connection: A connected stream socket, blocking; owned by this object.
    """

    def __init__(self, connection: socket.socket) -> None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self._connection = connection
        self._sending = threading.Lock()
        self._incoming = _Incoming(connection)

    def fileno(self) -> int:
        """Return the socket's file descriptor, for `poll`."""
        return self._connection.fileno()

    def send(self, message: object) -> None:
        """Send a message; blocks while the other end does not read.

        Raises:
            OSError: The other end is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        head = io.BytesIO()
        _Pickler(head, protocol=5, buffer_callback=buffers.append).dump(message)
        parts = [head.getbuffer(), *(buffer.raw() for buffer in buffers)]
        sizes = struct.pack(f'!I{len(parts)}Q', len(parts), *(part.nbytes for part in parts))
        with self._sending:
            # In one call: should this process hang after it (a driver that keeps the interpreter
            # lock), the other end has a whole message, or none, and does not wait for the rest.
            self._connection.sendall(sizes + head.getvalue())
            for part in parts[1:]:
                self._connection.sendall(part)

    def receive(self) -> Any:
        """Wait for the next message, and for all of it.

        Raises:
            EOFError: The other end is gone.
            OSError: The other end has gone.
            GarbledError: What came is no message.
        """
        while not self._incoming.read(0):
            pass
        return self._incoming.take()

    def receive_now(self) -> Any | None:
        """Return the next message if all of it has come, else None; never waits.

        What has come of it is kept: an end that dies or hangs half-way holds up nobody.

        Raises:
            EOFError: The other end is gone.
            OSError: The other end has gone.
            GarbledError: What came is no message.
        """
        try:
            while not self._incoming.read(socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return None
        return self._incoming.take()

    def shut(self) -> None:
        """End the conversation: both ends see the end of the stream, also a thread that waits."""
        with contextlib.suppress(OSError):  # The other end was gone already.
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the file descriptor; call it when no thread uses the channel any more."""
        self._connection.close()
