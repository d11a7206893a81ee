"""What goes out of the vlm node unasked: answers, the state, diagnostics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String

from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
from edge_vlm_ros.nodes import diagnostics, qos

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rclpy.node import Node

    from edge_vlm_ros.nodes.ahead import AheadFacts
    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.requests import OpenRequests
    from edge_vlm_ros.nodes.status import NodeStatus


class Outlets:
    """The node's publishers. Answers go out on any thread, all else on the executor's.

    Args:
        node: Whose publishers they are.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        events = qos.no_publisher_events()
        self._chunks = node.create_publisher(
            AnswerChunkMsg, '~/answer', qos.ANSWER_CHUNKS, event_callbacks=events
        )
        self._texts = node.create_publisher(
            String, '~/answer_text', qos.ANSWER_TEXT, event_callbacks=events
        )
        self._states = node.create_publisher(String, '~/state', qos.STATE, event_callbacks=events)
        self._diagnostics = node.create_publisher(
            DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS, event_callbacks=events
        )
        self._last_state = ''

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Publish one chunk; on any thread (see `requests.AnswerPublisher`)."""
        self._chunks.publish(message)

    def publish_answer(self, message: AnswerMsg) -> None:
        """Publish the text of a good answer for speech and for people; on any thread."""
        if message.error_code == AnswerMsg.ERROR_NONE:
            self._texts.publish(String(data=message.text))

    def publish_state(self, status: NodeStatus) -> None:
        """Publish the state, where it is another than the last."""
        if status.state != self._last_state:
            self._last_state = status.state
            self._states.publish(String(data=status.state))

    def publish_diagnostics(
        self,
        status: NodeStatus,
        requests: OpenRequests,
        sessions: Sequence[str],
        cameras: Iterable[CameraHealth],
        ahead: AheadFacts | None = None,
    ) -> None:
        """Publish a status for engine, queue, conversations, work ahead of them, each camera."""
        name = self._node.get_fully_qualified_name()
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [
            diagnostics.engine_status(name, status),
            diagnostics.queue_status(name, status.hardware, requests),
            diagnostics.sessions_status(name, status.hardware, sessions),
            *([diagnostics.ahead_status(name, status.hardware, ahead)] if ahead else []),
            *(diagnostics.camera_status(name, health) for health in cameras),
        ]
        self._diagnostics.publish(message)
