"""What goes out of the vlm node unasked: answers, the state, diagnostics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String

from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
from edge_vlm_ros.nodes import diagnostics, qos
from edge_vlm_ros.nodes.debug_image import DebugImage
from edge_vlm_ros.nodes.qos_overrides import create_publisher
from edge_vlm_ros.nodes.watch_diagnostics import watch_statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.qos import QoSProfile

    from edge_vlm_ros.core import Question
    from edge_vlm_ros.nodes.ahead import AheadFacts
    from edge_vlm_ros.nodes.declaring import ParameterTable
    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.requests import OpenRequests
    from edge_vlm_ros.nodes.status import NodeStatus
    from edge_vlm_ros.nodes.watches import Watches


class Outlets:
    """The node's publishers. Answers go out on any thread, all else on the executor's.

    Args:
        node: Whose publishers they are.
        parameters: Of the node; overrides of the publishers' QoS are declared there.
        later: Has something run on the executor's thread; may be called on any.

    Raises:
        SettingsError: Such an override makes no sense.
    """

    def __init__(
        self, node: Node, parameters: ParameterTable, later: Callable[[Callable[[], None]], None]
    ) -> None:
        def create(kind: type[Any], topic: str, profile: QoSProfile) -> Publisher[Any]:
            return create_publisher(node, parameters, kind, topic, profile)

        self._node = node
        self._chunks = create(AnswerChunkMsg, '~/answer', qos.ANSWER_CHUNKS)
        self._texts = create(String, '~/answer_text', qos.ANSWER_TEXT)
        self._states = create(String, '~/state', qos.STATE)
        self._diagnostics = create(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
        self._debug_image = DebugImage(node, parameters, later)
        self._last_state = ''

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Publish one chunk; on any thread (see `requests.AnswerPublisher`)."""
        self._chunks.publish(message)

    def publish_answer(self, message: AnswerMsg, question: Question | None = None) -> None:
        """Publish the text of a good answer for speech, any for people to look at; any thread."""
        if message.error_code == AnswerMsg.ERROR_NONE:
            self._texts.publish(String(data=message.text))
        if question is not None:
            self._debug_image.show(question, message)

    def publish_state(self, status: NodeStatus) -> None:
        """Publish the state, where it is another than the last."""
        if status.state != self._last_state:
            self._last_state = status.state
            self._states.publish(String(data=status.state))

    def publish_diagnostics(  # noqa: PLR0913 (keywords)
        self,
        status: NodeStatus,
        requests: OpenRequests,
        sessions: Sequence[str],
        cameras: Iterable[CameraHealth],
        *,
        ahead: AheadFacts | None = None,
        watches: Watches | None = None,
    ) -> None:
        """Publish a status for engine, queue, conversations, what is ahead, cameras, watches."""
        name = self._node.get_fully_qualified_name()
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [
            diagnostics.engine_status(name, status),
            diagnostics.queue_status(name, status.hardware, requests),
            diagnostics.sessions_status(name, status.hardware, sessions),
            *([diagnostics.ahead_status(name, status.hardware, ahead)] if ahead else []),
            *(diagnostics.camera_status(name, health) for health in cameras),
            *(watch_statuses(name, status.hardware, watches) if watches is not None else ()),
        ]
        self._diagnostics.publish(message)
