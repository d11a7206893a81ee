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

    def fileno(self) -> int:
        """Return the socket's file descriptor, for `select`."""
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
        """Wait for the next message.

        Raises:
            EOFError: The other end is gone.
            OSError: Likewise.
        """
        (count,) = struct.unpack('!I', self._read(4))
        sizes = struct.unpack(f'!{count}Q', self._read(8 * count))
        head, *buffers = [self._read(size) for size in sizes]
        return pickle.loads(head, buffers=buffers)  # noqa: S301 (from our own other end)

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        left = memoryview(data)
        while left:
            taken = self._connection.recv_into(left)
            if not taken:
                raise EOFError('the other end is gone')
            left = left[taken:]
        return data

    def shut(self) -> None:
        """End the conversation: both ends see the end of the stream, also a thread that waits."""
        with contextlib.suppress(OSError):  # The other end was gone already.
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the file descriptor; call it when no thread uses the channel any more."""
        self._connection.close()
