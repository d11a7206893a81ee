"""Places in answers: on the frame they are about, or on none."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vlm_ros.core import FrameSource, Question, RawImage, StoredFrame

BOX = '<ref>dog</ref><box>[[100, 200, 500, 600]]</box>'
ANSWERS = [
    {'question': 'Where', 'answer': f'There: {BOX}'},
    {'question': 'Wrong', 'answer': '<ref>dog</ref><box>[[500, 200, 100, 600]]</box>'},
    {'answer': 'Fine.'},
]


def frame(number, width=200, height=100):
    pixels = np.full((height, width, 3), number, np.uint8)
    image = RawImage('rgb8', width, height, 3 * width, pixels.tobytes())
    return StoredFrame(FrameSource('front'), number, image, number)


@pytest.fixture
def pipeline(open_scripted):
    return open_scripted(answers=ANSWERS)


def ask(pipeline, text, *frames, session=''):
    question = Question(text, frames=frames, session_id=session)
    answer = pipeline.ask(question).answer(60)
    assert answer.success, answer.message
    return answer


def test_a_place_is_in_pixels_of_the_one_frame(pipeline):
    answer = ask(pipeline, 'Where is the dog?', frame(1))
    (found,) = answer.detections.found
    assert (found.label, found.frame) == ('dog', 0)
    assert (found.x, found.y, found.width, found.height) == (20, 20, 80, 40)
    assert answer.detections.dropped == 0
    assert BOX in answer.text, "the words stay the model's own"


def test_of_several_frames_none_is_guessed(pipeline):
    answer = ask(pipeline, 'Where is the dog?', frame(1), frame(2))
    assert answer.detections.found == ()
    assert answer.detections.dropped == 1
    assert 'names 1 places, but not on which of 2 frames' in answer.message


def test_an_impossible_place_is_told(pipeline):
    answer = ask(pipeline, 'Wrong place?', frame(1))
    assert answer.detections.found == ()
    assert '1 of 1 places cannot be in the frame' in answer.message


def test_in_a_conversation_a_place_is_on_the_frame_of_its_turn(pipeline):
    ask(pipeline, 'What is this?', frame(1), session='s')
    again = ask(pipeline, 'Where is the dog?', session='s')
    assert [found.frame for found in again.detections.found] == [0]
    newer = ask(pipeline, 'Where is the dog?', frame(2, width=400), session='s')
    (found,) = newer.detections.found
    assert newer.frames[found.frame].width == 400
    assert found.x == 40
    both = ask(pipeline, 'Where is the dog?', session='s')
    assert both.detections.found == ()


def test_an_answer_without_places_has_none(pipeline):
    answer = ask(pipeline, 'Anything?', frame(1))
    assert (answer.detections.found, answer.detections.dropped) == ((), 0)
    assert answer.message == ''
