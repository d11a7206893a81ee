"""Messages between two processes."""

from __future__ import annotations

import pickle
import socket
import struct
import threading

import pytest

from edge_vlm_ros.core import AnswerChunk, FrameSource, Question, RawImage, StoredFrame
from edge_vlm_ros.serving.process.channel import Channel, GarbledError
from edge_vlm_ros.serving.process.messages import AskMessage, BeatMessage, ChunkMessage
from edge_vlm_ros.serving.step import Step


class Counted(socket.socket):
    """A socket that notes what it was given to send."""

    def __init__(self, other):
        super().__init__(fileno=other.detach())
        self.sent = []

    def sendall(self, data):
        self.sent.append(len(data))
        super().sendall(data)


def ends():
    ours, theirs = socket.socketpair()
    ours = Counted(ours)
    return ours, Channel(ours), Channel(theirs)


def test_what_the_model_process_says_goes_out_in_one_piece():
    """It may hang for good between any two calls; the parent must not wait for the rest."""
    connection, ours, theirs = ends()
    for message in (BeatMessage(Step('decode', 'a')), ChunkMessage(AnswerChunk('a', 0, 'word '))):
        connection.sent.clear()
        ours.send(message)
        assert theirs.receive() == message
        assert len(connection.sent) == 1
    ours.close()
    theirs.close()


def test_the_bytes_of_an_image_travel_beside_their_message():
    connection, ours, theirs = ends()
    pixels = bytes(range(192))
    image = RawImage('rgb8', 8, 8, 24, pixels)
    ours.send(AskMessage(Question('Eh?', 'a', frames=(StoredFrame(FrameSource('f'), 1, image),))))
    assert connection.sent[1:] == [len(pixels)]
    shown = theirs.receive().question.frames[0].image
    assert bytes(shown.data) == pixels
    ours.close()
    theirs.close()


@pytest.fixture
def raw():
    """A socket, and a channel at its other end."""
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    yield ours, channel
    ours.close()
    channel.close()


def packed(message, *buffers):
    head = pickle.dumps(message)
    sizes = [len(head), *map(len, buffers)]
    return struct.pack(f'!I{len(sizes)}Q', len(sizes), *sizes) + head + b''.join(buffers)


def test_half_a_message_holds_up_nobody(raw):
    ours, channel = raw
    data = packed(['a', 1]) + packed('b', b'', b'xyz')
    assert channel.receive_now() is None
    got = []
    for byte in data:
        ours.send(bytes([byte]))
        message = channel.receive_now()
        if message is not None:
            got.append(message)
    assert got == [['a', 1], 'b']
    assert channel.receive_now() is None


def test_several_messages_come_one_by_one_and_the_end_after_them(raw):
    ours, channel = raw
    ours.sendall(packed(1) + packed(2) + packed(3)[:-1])
    ours.close()
    assert [channel.receive_now(), channel.receive()] == [1, 2]
    with pytest.raises(EOFError):
        channel.receive_now()


@pytest.mark.parametrize(
    'data',
    [
        struct.pack('!I', 0),
        struct.pack('!I', 2**32 - 1),
        struct.pack('!IQ', 1, 2**63),
        struct.pack('!IQ', 1, 5) + b'spam\n',
        b'a line that was printed here by mistake',
    ],
)
def test_what_is_no_message_is_refused_and_no_memory_taken_for_it(raw, data):
    ours, channel = raw
    ours.sendall(data)
    with pytest.raises(GarbledError):
        channel.receive_now()


def test_a_send_to_one_who_does_not_read_ends_when_the_channel_is_shut(raw):
    _ours, channel = raw
    refused = []

    def send():
        try:
            channel.send(b'x' * 64 * 2**20)
        except OSError as error:
            refused.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(0.2)
    assert sender.is_alive()
    channel.shut()
    sender.join()
    assert refused
