"""The doors through which requests come: four services and an action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.action.server import ActionServer

from edge_vlm_ros.action import Ask as AskAction
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.srv import Ask, Cancel, Describe, ResetSession

if TYPE_CHECKING:
    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node

    from edge_vlm_ros.nodes.answering import Answering

RESULT_TIMEOUT_S = 900
"""How long the result of a goal can be fetched; the default differs by distribution.

From the goal's end, but on Humble from its *acceptance*: a shorter time would drop the result of
an answer that takes long there. A goal's images are freed when it ends, not when its result is
(`Answering.on_goal`).
"""


def open_services(
    node: Node, answering: Answering, group: CallbackGroup
) -> ActionServer[Any, Any, Any]:
    """Open them on a node; return the action's server, which its owner destroys.

    Args:
        node: Whose services they are.
        answering: Answers.
        group: Reentrant: replies take long.
    """
    shared: dict[str, Any] = {'callback_group': group, 'qos_profile': qos.SERVICE}
    node.create_service(Ask, 'ask', answering.on_ask, **shared)
    node.create_service(Describe, 'describe', answering.on_describe, **shared)
    node.create_service(Cancel, '~/cancel', answering.on_cancel, **shared)
    node.create_service(ResetSession, '~/reset_session', answering.on_reset_session, **shared)
    return ActionServer(
        node,
        AskAction,
        '~/ask',
        answering.on_goal,
        callback_group=group,
        cancel_callback=answering.on_cancel_goal,
        goal_service_qos_profile=qos.SERVICE,
        result_service_qos_profile=qos.SERVICE,
        cancel_service_qos_profile=qos.SERVICE,
        feedback_pub_qos_profile=qos.ANSWER_CHUNKS,
        result_timeout=RESULT_TIMEOUT_S,
    )
