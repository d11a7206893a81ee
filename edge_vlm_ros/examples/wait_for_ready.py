"""A second node that begins when the model is ready, and says when it is not any more.

`/vlm/state` is latched: whoever comes late hears how it is at once. It begins with one word
(`loading`, `ready`, `failed`, ...), which may be followed by a colon and more.
"""

from __future__ import annotations

import contextlib
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from edge_vlm_ros.srv import Describe


class WaitForReady(Node):
    """Has the scene described, once the model can."""

    def __init__(self, **options: Any) -> None:
        super().__init__('wait_for_ready', **options)
        latched = QoSProfile(
            depth=1,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            reliability=ReliabilityPolicy.RELIABLE,
        )
        self._describe: Any = self.create_client(Describe, 'describe')
        self._is_ready = False
        self.create_subscription(String, '/vlm/state', self._on_state, latched)

    def _on_state(self, message: String) -> None:
        word = message.data.partition(':')[0]
        self.get_logger().info(message.data)
        was_ready, self._is_ready = self._is_ready, word == 'ready'
        if self._is_ready and not was_ready:
            self._describe.call_async(Describe.Request()).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        answer = future.result().answer
        is_good = answer.error_code == answer.ERROR_NONE
        self.get_logger().info(answer.text if is_good else answer.message)


def main() -> None:
    """Run it until Ctrl-C."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(WaitForReady())


if __name__ == '__main__':
    main()
