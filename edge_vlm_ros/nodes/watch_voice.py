"""What watches say: events, a latched Bool each, and how all of them do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from std_msgs.msg import Bool

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.msg import WatchEvent as WatchEventMsg
from edge_vlm_ros.msg import WatchStates
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.qos_overrides import create_publisher
from edge_vlm_ros.nodes.watch_messages import event_to_ros, states_to_ros
from edge_vlm_ros.watch import EventKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from edge_vlm_ros.nodes.declaring import ParameterTable
    from edge_vlm_ros.nodes.node_time import Moment
    from edge_vlm_ros.watch import WatchEvent, WatchFacts

COUNTS_NS = NS_PER_S
"""Counters alone are published no more often than this."""

_CHANGES = {EventKind.BEGIN: True, EventKind.END: False}


class WatchVoice:
    """The publishers of a node's watches. The executor's thread alone.

    Args:
        node: Whose.
        parameters: Of the node; overrides of the publishers' QoS are declared there.

    Raises:
        SettingsError: Such an override makes no sense.
    """

    def __init__(self, node: Node, parameters: ParameterTable) -> None:
        self._node = node
        self._events = create_publisher(node, parameters, WatchEventMsg, '~/event', qos.EVENTS)
        self._states = create_publisher(node, parameters, WatchStates, '~/watch_states', qos.STATE)
        self._flags: dict[str, Publisher[Any]] = {}
        self._said: tuple[Any, ...] = ()
        self._said_ns = -COUNTS_NS
        self._counted: list[Any] = []

    def keep(self, names: Sequence[str]) -> None:
        """Have a Bool for each of these watches, and for no others."""
        for name in [name for name in self._flags if name not in names]:
            self._node.destroy_publisher(self._flags.pop(name))
        for name in names:
            if name not in self._flags:
                self._flags[name] = self._node.create_publisher(
                    Bool,
                    f'~/watches/{name}',
                    qos.latched(),
                    event_callbacks=qos.no_publisher_events(),
                )
                self._flags[name].publish(Bool(data=False))

    def publish(self, event: WatchEvent) -> None:
        """Say something."""
        self._events.publish(event_to_ros(event))
        is_on = _CHANGES.get(event.kind)
        flag = self._flags.get(event.watch)
        if is_on is not None and flag is not None:
            flag.publish(Bool(data=is_on))

    def publish_states(
        self, facts: Sequence[WatchFacts], now: Moment, *, at_once: bool = False
    ) -> None:
        """Say how all watches do, where anything has changed.

        Args:
            facts: Of each.
            now: This moment.
            at_once: Counters alone are worth it, too.
        """
        phases = tuple((f.spec, f.phase, f.event_on) for f in facts)
        is_news = at_once or phases != self._said or not self._counted
        if not is_news and now.steady_ns - self._said_ns < COUNTS_NS:
            return
        message = states_to_ros(facts, now.ros_ns)
        if not is_news and message.watches == self._counted:
            return
        self._said, self._said_ns, self._counted = phases, now.steady_ns, message.watches
        self._states.publish(message)
