"""Messages between two processes."""

from __future__ import annotations

import socket

from edge_vlm_ros.core import AnswerChunk, FrameSource, Question, RawImage, StoredFrame
from edge_vlm_ros.serving.process.channel import Channel
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
