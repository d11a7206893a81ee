"""The pixels of a frame cross to the model process once, and each question gets its own."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import FrameSource, Prefix, Question, RawImage, StoredFrame
from edge_vlm_ros.serving.process.messages import AskMessage, HeldFrame, PrefixMessage
from edge_vlm_ros.serving.process.wire_frames import FrameReceiver, FrameSender

FRAMES = [
    StoredFrame(FrameSource('front'), n, RawImage('mono8', 1, 1, 1, bytes([n]))) for n in range(5)
]
some_frames = st.lists(st.sampled_from(FRAMES), max_size=4).map(tuple)
messages = st.one_of(
    some_frames.map(lambda frames: AskMessage(Question('What?', frames=frames))),
    some_frames.map(lambda frames: PrefixMessage(Prefix(frames, session_id='s'))),
    st.just(PrefixMessage(None)),
)


@given(st.lists(messages, max_size=12))
def test_what_comes_out_is_what_went_in(sent):
    sender, receiver = FrameSender(), FrameReceiver()
    crossed = []
    for message in sent:
        packed = sender.pack(message)
        crossed += [frame for frame in packed.frames if not isinstance(frame, HeldFrame)]
        assert receiver.unpack(pickle.loads(pickle.dumps(packed))) == message
    assert all(isinstance(frame, StoredFrame) for frame in crossed)


def test_only_what_is_new_crosses():
    sender = FrameSender()

    def crossing(message):
        return [f.stamp_ns for f in sender.pack(message).frames if isinstance(f, StoredFrame)]

    a, b, c, d, _ = FRAMES
    assert crossing(PrefixMessage(Prefix((a, b)))) == [0, 1]
    assert crossing(PrefixMessage(Prefix((a, b, c)))) == [2]
    assert crossing(AskMessage(Question('What?', frames=(a, b, c)))) == []
    assert crossing(AskMessage(Question('What?', frames=(a, b, c, d)))) == [3]
    assert crossing(PrefixMessage(Prefix((c, d)))) == [3], 'what a question brought is not held'
    assert crossing(PrefixMessage(None)) == []
    assert crossing(AskMessage(Question('What?', frames=(c,)))) == [2]
    assert FrameSender().pack(PrefixMessage(Prefix((a,)))).frames == (a,), 'a new process'
