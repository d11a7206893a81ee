"""`~/debug_image`: what people see of an answer, and nobody pays for it who does not look."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers:
  - {question: Where, answer: '<ref>dog</ref><box>[[100, 200, 500, 600]]</box>'}
  - {answer: Fine.}
"""
MARK = (255, 196, 60)


def pixels_of(image):
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def test_the_frame_with_question_answer_and_places_on_it(other_robot):
    from sensor_msgs.msg import Image

    robot, client = other_robot, other_robot.client
    camera = client.node.create_publisher(Image, '/image_raw', 10)
    robot.vlm({'chip': 'scripted', 'model': robot.script(SCRIPT), 'frame_wait_s': 30.0})
    client.until_state('ready')

    def ask(question):
        stamp_ns = client.node.get_clock().now().nanoseconds
        timer = client.node.create_timer(
            0.1, lambda: camera.publish(client.grey(40, stamp_ns, size=(400, 200)))
        )
        answer = client.ask(question)
        client.node.destroy_timer(timer)
        assert answer.error_code == answer.ERROR_NONE, answer.message
        return answer

    ask('Nobody looks')
    seen = []
    client.node.create_subscription(Image, '/vlm/debug_image', seen.append, 1)
    client.until(lambda: client.node.count_publishers('/vlm/debug_image'))
    client.spin(0.5)
    assert seen == [], 'an answer that nobody looked at is not drawn'
    answer = ask('Where is the dog?')
    client.until(lambda: seen, what='the debug image')
    (image,) = seen
    (found,) = answer.detections
    assert (image.encoding, image.header) == ('rgb8', answer.header)
    picture = pixels_of(image)
    shown = answer.frames[0]
    scale = image.width / shown.width
    upper, left = round(found.y * scale), round(found.x * scale)
    middle = left + round(found.width * scale / 2)
    assert tuple(picture[upper, middle]) == MARK, 'the upper edge of the box'
    assert picture.shape[0] > round(shown.height * scale), 'words below the frame'
    assert (picture[round(shown.height * scale) :].max(axis=2) > 200).any(), 'and they are bright'
