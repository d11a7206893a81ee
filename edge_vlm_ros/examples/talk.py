"""A voice: hints while somebody begins to speak, asks what was said, says the answer.

With `ahead_mode: prefill` the hint has the frames and all of the prompt before the question
computed while the person still talks, so the answer begins sooner.

    /voice_activity  std_msgs/Bool    from a wake word or a voice activity detector
    /speech          std_msgs/String  what a speech recogniser heard
    /say             std_msgs/String  to a speech synthesiser, sentence by sentence
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import rclpy
from rclpy.action.client import ActionClient
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Bool, String

from edge_vlm_ros.action import Ask
from edge_vlm_ros.msg import Hint

SESSION = 'voice'
_SENTENCE = re.compile(r'.*?[.!?\u3002\uff01\uff1f](?=\s|$)\s*', re.DOTALL)


class Talk(Node):
    """Hears, asks, says."""

    def __init__(self, **options: Any) -> None:
        super().__init__('talk', **options)
        self._hint = self.create_publisher(Hint, '/vlm/hint', 1)
        self._say = self.create_publisher(String, '/say', 10)
        self._ask: Any = ActionClient(self, Ask, '/vlm/ask')
        self._unsaid = ''
        self.create_subscription(Bool, '/voice_activity', self._on_voice, 10)
        self.create_subscription(String, '/speech', self._on_speech, 10)

    def _on_voice(self, message: Bool) -> None:
        if message.data:
            self._hint.publish(Hint(session_id=SESSION))

    def _on_speech(self, message: String) -> None:
        if not self._ask.server_is_ready():
            self._say.publish(String(data='I cannot see yet.'))
            return
        self._unsaid = ''
        goal = Ask.Goal(question=message.data, session_id=SESSION)
        sent = self._ask.send_goal_async(goal, self._on_chunk)
        sent.add_done_callback(self._on_taken)

    def _on_chunk(self, message: Any) -> None:
        self._unsaid += message.feedback.chunk.delta
        while found := _SENTENCE.match(self._unsaid):
            self._say.publish(String(data=found[0].strip()))
            self._unsaid = self._unsaid[found.end() :]

    def _on_taken(self, future: Any) -> None:
        future.result().get_result_async().add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        answer = future.result().result.answer
        if answer.error_code != answer.ERROR_NONE:
            self.get_logger().warning(answer.message)
            self._say.publish(String(data='I could not find out.'))
        elif self._unsaid.strip():
            self._say.publish(String(data=self._unsaid.strip()))
        self._unsaid = ''


def main() -> None:
    """Run it until Ctrl-C."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Talk())


if __name__ == '__main__':
    main()
