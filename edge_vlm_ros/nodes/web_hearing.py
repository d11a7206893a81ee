"""What the page's process hears of the `vlm` node while a page is open. Executor's thread alone.

The node is there as long as somebody publishes its state, and its diagnostics come once a second:
a node that was killed stays on the graph for a while, one that hangs for ever.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined] # Humble has it nowhere else
from std_msgs.msg import String

from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
from edge_vlm_ros.msg import WatchEvent as WatchEventMsg
from edge_vlm_ros.msg import WatchStates as WatchStatesMsg
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.web_facts import FactsReader
from edge_vlm_ros.nodes.web_fields import DIAGNOSTIC_VALUES, fields_of, name_of_error
from edge_vlm_ros.web import (
    Diagnostics,
    Facts,
    Overheard,
    Part,
    State,
    Watches,
    WatchEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from edge_vlm_ros.web import News

TICK_S: Final = 1.0
SILENCE_S: Final = 4.0
"""Diagnostics come once a second; after so long without any, the node is not there."""


class Hearing:
    """Subscribes to all that the node says of itself, from now until `close`.

    Args:
        node: Listens.
        vlm: Full name of the one that is listened to.
        facts: What was known of it last.
        hear: Called with everything.
        on_lost: Called when the node that was there is not any more, or another has its name.
    """

    def __init__(
        self,
        node: Node,
        vlm: str,
        *,
        facts: Facts,
        hear: Callable[[News], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._node = node
        self._vlm = vlm
        self._hear = hear
        self._on_lost = on_lost
        self._state = State(text='', is_there=False)
        self._text = ''
        self._diagnostics_s = time.monotonic()  # It gets as long as any to be heard.
        self._publishers: frozenset[bytes] = frozenset()
        self.facts = facts
        self._reader = FactsReader(node, vlm, self._on_facts)
        self._subscriptions = [
            node.create_subscription(kind, topic, callback, profile)
            for kind, topic, callback, profile in (
                (String, f'{vlm}/state', self._on_state, qos.STATE),
                (DiagnosticArray, '/diagnostics', self._on_diagnostics, qos.DIAGNOSTICS),
                (AnswerChunkMsg, f'{vlm}/answer', self._on_chunk, qos.ANSWER_CHUNKS),
                (WatchStatesMsg, f'{vlm}/watch_states', self._on_watches, qos.latched()),
                (WatchEventMsg, f'{vlm}/event', self._on_event, qos.reliable(100)),
            )
        ]
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(TICK_S, self._tick, clock=steady)
        hear(self.facts)
        hear(self._state)
        self._reader.look()

    def close(self) -> None:
        """Hear nothing more."""
        self._reader.close()
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _tick(self) -> None:
        """See whether the node is there, and is the one that it was."""
        found = self._node.get_publishers_info_by_topic(f'{self._vlm}/state')
        publishers = frozenset(bytes(info.endpoint_gid) for info in found)
        is_new = bool(publishers - self._publishers)
        is_another = is_new and bool(self._publishers)
        self._publishers = publishers
        if is_new:
            self._diagnostics_s = time.monotonic()
            self._reader.want()
        is_silent = time.monotonic() - self._diagnostics_s > SILENCE_S
        is_there = bool(publishers) and not is_silent
        if is_another or (self._state.is_there and not is_there):
            self._on_lost()
        self._say(is_there=is_there)
        self._reader.look()

    def _say(self, *, is_there: bool) -> None:
        text = self._text if is_there else f'nothing is heard of {self._vlm}: is it running?'
        state = State(text, is_there)
        if state != self._state:
            self._state = state
            self._hear(state)

    def _on_facts(self, facts: Facts) -> None:
        self.facts = facts
        self._hear(facts)

    def _on_state(self, message: String) -> None:
        self._text = message.data
        self._say(is_there=True)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        start = f'{self._vlm}: '
        parts = tuple(
            _part(status, status.name[len(start) :])
            for status in message.status
            if status.name.startswith(start)
        )
        if not parts:
            return  # Somebody else's.
        self._diagnostics_s = time.monotonic()
        if not self._state.is_there and self._text:
            self._say(is_there=True)
        self._hear(Diagnostics(parts))
        self._follow_topics(parts)

    def _follow_topics(self, parts: tuple[Part, ...]) -> None:
        """Take over the topics as they are subscribed: parameters do not know of remapping."""
        topics = {
            part.name.removeprefix('camera '): part.values.get('topic', '')
            for part in parts
            if part.name.startswith('camera ')
        }
        cameras = tuple(
            replace(camera, topic=topics.get(camera.name) or camera.topic)
            for camera in self.facts.cameras
        )
        if cameras != self.facts.cameras:
            self._on_facts(replace(self.facts, cameras=cameras))

    def _on_chunk(self, chunk: AnswerChunkMsg) -> None:
        self._hear(
            Overheard(
                request_id=chunk.request_id,
                delta=chunk.delta,
                done=chunk.done,
                error_code=chunk.error_code,
                error_code_name=name_of_error(chunk.error_code),
                message=chunk.message,
                total_s=chunk.stats.total_s,
            )
        )

    def _on_watches(self, message: WatchStatesMsg) -> None:
        self._hear(Watches(tuple(fields_of(state) for state in message.watches)))

    def _on_event(self, message: WatchEventMsg) -> None:
        self._hear(WatchEvent(fields_of(message)))


def _part(status: Any, name: str) -> Part:
    # A byte is `bytes` of length one in Python.
    level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
    values = {each.key: each.value for each in status.values[:DIAGNOSTIC_VALUES]}
    return Part(name, level, status.message, values)
