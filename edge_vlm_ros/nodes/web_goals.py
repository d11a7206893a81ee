"""Questions of the page as goals of the node's action. Executor's thread alone.

Each ends in exactly one answer: where the node is gone, one that says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rclpy.action.client import ActionClient
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined] # Humble has it nowhere else

from edge_vlm_ros.action import Ask as AskAction
from edge_vlm_ros.core import CancelledError, EdgeVlmError, NotReadyError
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.web_fields import fields_of_answer, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rclpy.node import Node

    from edge_vlm_ros.web import Request

FIND_S: Final = 3.0
"""A server that is not found within so long is not there."""
LOOK_S: Final = 0.05


@dataclass
class _Goal:
    """A question under way."""

    request: Request
    on_delta: Callable[[str], None]
    on_answer: Callable[[Mapping[str, Any]], None]
    handle: Any = None
    is_cancelled: bool = False
    asked_s: float = field(default_factory=time.monotonic)


class Goals:
    """The questions that have no answer yet.

    Args:
        node: Asks.
        vlm: Full name of the one that is asked.
        on_sent: Called when a question has just gone out.
    """

    def __init__(self, node: Node, vlm: str, on_sent: Callable[[Request], None]) -> None:
        self._node = node
        self._vlm = vlm
        self._on_sent = on_sent
        self._open: dict[str, _Goal] = {}
        self._unsent: list[_Goal] = []
        self._timer: Any = None
        self._client: Any = ActionClient(
            node,
            AskAction,
            f'{vlm}/ask',
            feedback_sub_qos_profile=qos.ANSWER_CHUNKS,
        )

    @property
    def is_idle(self) -> bool:
        """Whether every question has its answer."""
        return not self._open

    def close(self) -> None:
        """Ask no more; questions that are open end now."""
        self.end_all(CancelledError('the page is closed'))
        self._stop_looking()
        self._client.destroy()

    def ask(
        self,
        request: Request,
        on_delta: Callable[[str], None],
        on_answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Ask, as soon as the server is found."""
        goal = _Goal(request, on_delta, on_answer)
        self._open[request.request_id] = goal
        if self._client.server_is_ready():
            self._send(goal)
            return
        self._unsent.append(goal)
        if self._timer is None:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self._node.create_timer(LOOK_S, self._look, clock=steady)

    def cancel(self, request_id: str) -> None:
        """End a question early; its answer comes."""
        goal = self._open.get(request_id)
        if goal is None:
            return
        goal.is_cancelled = True
        if goal in self._unsent:
            self._end(goal, CancelledError('cancelled before it was sent'))
        elif goal.handle is not None:
            goal.handle.cancel_goal_async()

    def end_all(self, error: EdgeVlmError) -> None:
        """Answer every question with an error: whoever had them is gone."""
        for goal in list(self._open.values()):
            self._end(goal, error)

    def _look(self) -> None:
        if self._client.server_is_ready():
            unsent, self._unsent = self._unsent, []
            for goal in unsent:
                self._send(goal)
        now_s = time.monotonic()
        for goal in [each for each in self._unsent if now_s - each.asked_s > FIND_S]:
            self._end(goal, NotReadyError(f'no node answers at {self._vlm}/ask'))
        if not self._unsent:
            self._stop_looking()

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _send(self, goal: _Goal) -> None:
        request = goal.request
        message = AskAction.Goal(
            question=request.question,
            request_id=request.request_id,
            session_id=request.session_id,
            cameras=list(request.cameras),
            last_seconds=request.last_seconds,
            max_frames=request.max_frames,
            choices=list(request.choices),
            timeout_s=request.timeout_s,
        )

        def on_feedback(feedback: Any) -> None:
            if request.request_id in self._open:
                goal.on_delta(feedback.feedback.chunk.delta)

        sent = self._client.send_goal_async(message, feedback_callback=on_feedback)
        sent.add_done_callback(lambda future: self._on_handle(goal, future))
        self._on_sent(request)

    def _on_handle(self, goal: _Goal, future: Any) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._end(goal, NotReadyError('the node did not take the question'))
            return
        goal.handle = handle
        handle.get_result_async().add_done_callback(lambda done: self._on_result(goal, done))
        if goal.is_cancelled:
            handle.cancel_goal_async()

    def _on_result(self, goal: _Goal, future: Any) -> None:
        response = future.result()
        if response is None:
            self._end(goal, NotReadyError('the node gave no result'))
        elif self._open.pop(goal.request.request_id, None) is not None:
            goal.on_answer(fields_of_answer(response.result.answer))

    def _end(self, goal: _Goal, error: EdgeVlmError) -> None:
        if goal in self._unsent:
            self._unsent.remove(goal)
        request = goal.request
        if self._open.pop(request.request_id, None) is not None:
            goal.on_answer(refusal(request.request_id, request.session_id, error))
