"""A behaviour: stop while the way is blocked.

Asks `/ask` again and again, with `choices`, so that the answer is one of two words, and with
`max_age_s`, so that an old picture is refused. The robot may go only while a fresh, good answer
says so: a dead camera, a busy chip, a killed model and a slow answer all mean stop.

    ros2 topic echo /stop_while_blocked/stop      std_msgs/Bool, latched
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool

from edge_vlm_ros.srv import Ask

PERIOD_S = 0.5
MAX_AGE_S = 1.0
TIMEOUT_S = 2.0
GOOD_FOR_S = 3.0
"""So long a good answer is good for; then the robot stops, unless there is a newer one."""

BLOCKED, FREE = 'blocked', 'free'


class StopWhileBlocked(Node):
    """Says whether to stop."""

    def __init__(self, **options: Any) -> None:
        super().__init__('stop_while_blocked', **options)
        latched = QoSProfile(
            depth=1,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            reliability=ReliabilityPolicy.RELIABLE,
        )
        self._stop = self.create_publisher(Bool, '~/stop', latched)
        self._ask: Any = self.create_client(Ask, 'ask')
        self._asked: Any = None  # The question that is under way, and since when.
        self._asked_s = 0.0
        self._free_until_s = 0.0
        self._says: bool | None = None
        self.create_timer(PERIOD_S, self._tick)
        self._decide()

    def _tick(self) -> None:
        self._decide()
        if self._asked is not None and time.monotonic() > self._asked_s + 2 * TIMEOUT_S:
            self._ask.remove_pending_request(self._asked)  # Whoever had it is gone.
            self._asked = None
        if self._asked is not None or not self._ask.service_is_ready():
            return
        request = Ask.Request(
            question='Is the way in front of the robot blocked or free?',
            choices=[BLOCKED, FREE],
            max_age_s=MAX_AGE_S,
            timeout_s=TIMEOUT_S,
            priority=Ask.Request.PRIORITY_URGENT,
        )
        self._asked_s = time.monotonic()
        self._asked = self._ask.call_async(request)
        self._asked.add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        self._asked = None
        answer = future.result().answer
        if answer.error_code != answer.ERROR_NONE:
            self.get_logger().warning(f'no answer: {answer.message}', throttle_duration_sec=5.0)
        is_free = answer.error_code == answer.ERROR_NONE and answer.choice == FREE
        # From the question on: the picture is older than the answer.
        self._free_until_s = self._asked_s + GOOD_FOR_S if is_free else 0.0
        self._decide()

    def _decide(self) -> None:
        must_stop = time.monotonic() >= self._free_until_s
        if must_stop != self._says:
            self._says = must_stop
            self.get_logger().info('stop' if must_stop else 'go')
            self._stop.publish(Bool(data=must_stop))


def main() -> None:
    """Run it until Ctrl-C."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(StopWhileBlocked())


if __name__ == '__main__':
    main()
