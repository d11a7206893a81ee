"""A short-lived ROS node that finds a vlm node and talks with it."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import rclpy
from rclpy.action.client import ActionClient
from rclpy.action.graph import get_action_names_and_types

from edge_vlm_ros.action import Ask as AskAction
from edge_vlm_ros.core import NotReadyError
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.ros_process import ros_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rclpy.executors import Executor
    from rclpy.node import Node
    from rclpy.task import Future

    from edge_vlm_ros.msg import Answer as AnswerMsg

_TYPE = 'edge_vlm_ros/action/Ask'
_SPIN_S = 0.1
_SETTLE_S = 0.5
"""Once a node is found, others are waited for so long: there may be two to choose from."""
_GONE_S = 3.0
"""A node that is not heard of for so long is gone."""
_LAST_WORDS_S = 5.0
"""For so long the end of a cancelled answer is waited for."""

_Reply = TypeVar('_Reply')


@contextmanager
def client_of(name: str, wait_s: float) -> Iterator[Client]:
    """Give a client of a vlm node.

    Args:
        name: Full name of the node; '' = the only one there is.
        wait_s: Look so long for it.

    Raises:
        NotReadyError: There is none, or more than one and none was named.
    """
    with ros_process([]) as executor:
        node = rclpy.create_node(
            f'ros2_vlm_{os.getpid()}', start_parameter_services=False, enable_rosout=False
        )
        executor.add_node(node)
        try:
            yield Client(node, executor, _find(node, executor, name, wait_s))
        finally:
            node.destroy_node()


def _find(node: Node, executor: Executor, name: str, wait_s: float) -> str:
    if name:
        return '/' + name.strip('/')
    found: set[str] = set()
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        executor.spin_once(timeout_sec=_SPIN_S)
        names = {action for action, types in get_action_names_and_types(node) if _TYPE in types}
        if names - found:
            found = names
            until_s = min(until_s, time.monotonic() + _SETTLE_S)
    nodes = sorted(action.removesuffix('/ask') for action in found)
    if not nodes:
        raise NotReadyError(
            f'no vlm node was found within {wait_s:.3g} s (ROS_DOMAIN_ID is '
            f'{os.environ.get("ROS_DOMAIN_ID") or 0}); ros2 launch edge_vlm_ros vlm.launch.py '
            'starts one'
        )
    if len(nodes) > 1:
        raise NotReadyError(f'{len(nodes)} vlm nodes run: choose with --node {" or ".join(nodes)}')
    return nodes[0]


class Client:
    """Talks with one vlm node. One thread.

    Args:
        node: Of this process.
        executor: Which spins it.
        vlm: Full name of the node that is asked.
    """

    def __init__(self, node: Node, executor: Executor, vlm: str) -> None:
        self.node = node
        self.vlm = vlm
        self._executor = executor

    @property
    def namespace(self) -> str:
        """Where the node's services `ask` and `describe` are, with a slash at its end."""
        return self.vlm.rpartition('/')[0] + '/'

    def call(self, kind: Any, name: str, request: Any, wait_s: float) -> Any:
        """Call a service and wait for its reply.

        Raises:
            NotReadyError: There is no such service, or it went while it was waited for.
        """
        client: Any = self.node.create_client(kind, name)
        self._until(client.service_is_ready, wait_s, f'nothing answers at {name}')
        return self._result(client.call_async(request), client.service_is_ready, name)

    def ask(self, goal: Any, on_delta: Callable[[str], None], wait_s: float) -> AnswerMsg:
        """Ask, and give the answer; Ctrl-C takes the question back and gives what there was.

        Args:
            goal: Of action Ask.
            on_delta: Called with text as it comes.
            wait_s: Look so long for the node.

        Raises:
            NotReadyError: The node is not there, or went.
            KeyboardInterrupt: It was interrupted before it was asked, or said nothing any more.
        """
        name = f'{self.vlm}/ask'
        client: Any = ActionClient(
            self.node, AskAction, name, feedback_sub_qos_profile=qos.ANSWER_CHUNKS
        )
        is_there = client.server_is_ready
        self._until(is_there, wait_s, f'nothing answers at {name}')
        sent = client.send_goal_async(goal, lambda said: on_delta(said.feedback.chunk.delta))
        handle = self._result(sent, is_there, name)
        if not handle.accepted:
            raise NotReadyError(f'{self.vlm} did not take the question')
        future = handle.get_result_async()
        try:
            return self._result(future, is_there, name).result.answer
        except KeyboardInterrupt:
            handle.cancel_goal_async()
            self._until(future.done, _LAST_WORDS_S, f'{self.vlm} did not end the answer')
            return self._result(future, is_there, name).result.answer

    def spin(self) -> None:
        """Let callbacks run for a moment."""
        self._executor.spin_once(timeout_sec=_SPIN_S)

    def _result(self, future: Future[_Reply], is_there: Callable[[], bool], name: str) -> _Reply:
        seen_s = time.monotonic()
        while not future.done():
            self.spin()
            now_s = time.monotonic()
            seen_s = now_s if is_there() else seen_s
            if now_s - seen_s > _GONE_S:
                raise NotReadyError(f'{self.vlm} went while {name} was waited for')
        result = future.result()
        if result is None:
            raise NotReadyError(f'{name} gave no result')
        return result

    def _until(self, is_so: Callable[[], bool], wait_s: float, otherwise: str) -> None:
        until_s = time.monotonic() + wait_s
        while not is_so():
            if time.monotonic() > until_s:
                raise NotReadyError(f'{otherwise} (waited {wait_s:.3g} s)')
            self.spin()
