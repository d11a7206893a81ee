"""`~/debug_image`: the frame that an answer is about, with question, answer and age on it."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from sensor_msgs.msg import Image

from edge_vlm_ros.core import BadImageError, Detection
from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.conversions import header_to_ros
from edge_vlm_ros.nodes.qos_overrides import create_publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from edge_vlm_ros.core import Question, StoredFrame
    from edge_vlm_ros.nodes.declaring import ParameterTable
    from edge_vlm_ros.vision.captions import Line


class DebugImage:
    """Draws answers, while somebody looks.

    Drawing takes some ms and loads OpenCV; it runs on the executor's thread.

    Args:
        node: Whose topic it is.
        parameters: Of the node.
        later: Has something run on the executor's thread; may be called on any.
    """

    def __init__(
        self, node: Node, parameters: ParameterTable, later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._node = node
        self._later = later
        self._publisher = create_publisher(
            node, parameters, Image, '~/debug_image', qos.DEBUG_IMAGE
        )

    def show(self, question: Question, answer: AnswerMsg) -> None:
        """Draw an answer to a question that brought frames, soon; on any thread."""
        if question.frames and self._publisher.get_subscription_count():
            self._later(lambda: self._publish(question, answer))

    def _publish(self, question: Question, answer: AnswerMsg) -> None:
        frame = max(question.frames, key=lambda frame: frame.taken_ns or frame.stamp_ns)
        try:
            self._publisher.publish(_drawn(frame, question, answer))
        except BadImageError as error:
            self._node.get_logger().warning(f'no debug image of {answer.request_id}: {error}')


def _drawn(frame: StoredFrame, question: Question, answer: AnswerMsg) -> Image:
    from edge_vlm_ros.vision import decode_image
    from edge_vlm_ros.vision.captions import captioned

    pixels = decode_image(frame.image)
    index = _index_of(frame, answer)
    marks = [
        Detection(found.label, found.x, found.y, found.width, found.height)
        for found in answer.detections
        if found.frame == index
    ]
    picture = captioned(pixels, _lines(question, answer, index), marks)
    height, width = picture.shape[:2]
    return Image(
        header=header_to_ros([frame]),
        height=height,
        width=width,
        encoding='rgb8',
        step=3 * width,
        data=array('B', picture.tobytes()),
    )


def _index_of(frame: StoredFrame, answer: AnswerMsg) -> int:
    """Return which of the answer's frames it is; -1 = none of them: it could not be used."""
    header = header_to_ros([frame])
    same = (
        i
        for i, used in enumerate(answer.frames)
        if used.camera == frame.source.camera and used.header == header
    )
    return next(same, -1)


def _lines(question: Question, answer: AnswerMsg, index: int) -> list[Line]:
    from edge_vlm_ros.vision.captions import ACCENT, BAD, FAINT, Line

    lines = [Line(question.text, ACCENT, most=2), Line(answer.text)]
    if answer.error_code != AnswerMsg.ERROR_NONE:
        lines.append(Line(f'error {answer.error_code}: {answer.message}', BAD))
    facts = [f'{answer.stats.total_s:.2f} s to answer']
    if index >= 0:
        used = answer.frames[index]
        name = used.camera or 'image of the request'
        facts.insert(0, f'{name}, {used.age_s:.2f} s old when asked')
    if len(answer.frames) > 1:
        facts.append(f'newest of {len(answer.frames)} frames')
    return [*lines, Line(', '.join(facts), FAINT, 0.45)]
