"""What the `vlm` node is, as its parameters say: cameras, presets. Executor's thread alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter

from edge_vlm_ros.web import Camera, Facts, Preset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rclpy.node import Node

GIVE_UP_S: Final = 5.0
"""A node that has not replied for so long is asked again: it may be another one by now."""
_LISTS: Final = ('camera_names', 'preset_names')


class FactsReader:
    """Asks the node for what it is, again and again until it has replied.

    Args:
        node: Asks.
        vlm: Full name of the one that is asked.
        on_facts: Called with what it is.
    """

    def __init__(self, node: Node, vlm: str, on_facts: Callable[[Facts], None]) -> None:
        self._node = node
        self._vlm = vlm
        self._on_facts = on_facts
        self._client: Any = node.create_client(GetParameters, f'{vlm}/get_parameters')
        self._asked_s = 0.0
        self._is_wanted = True

    def close(self) -> None:
        """Ask no more."""
        self._is_wanted = False
        self._node.destroy_client(self._client)

    def want(self) -> None:
        """Have it asked (again), now or as soon as it is there."""
        self._is_wanted = True
        self._asked_s = 0.0
        self.look()

    def look(self) -> None:
        """Ask, where that is due; call this about once a second."""
        now_s = time.monotonic()
        is_asked = self._asked_s and now_s - self._asked_s < GIVE_UP_S
        if not self._is_wanted or is_asked or not self._client.service_is_ready():
            return
        self._asked_s = now_s
        self._ask(_LISTS, self._ask_for_parts)

    def _ask_for_parts(self, lists: Mapping[str, Any]) -> None:
        cameras = [name for name in lists.get('camera_names') or () if name]
        presets = [name for name in lists.get('preset_names') or () if name]
        names = [f'cameras.{name}.{part}' for name in cameras for part in ('topic', 'transport')]
        names += [f'presets.{name}' for name in presets]

        def on_values(values: Mapping[str, Any]) -> None:
            self._is_wanted = False
            self._on_facts(
                Facts(
                    name=self._vlm,
                    cameras=tuple(self._camera(name, values) for name in cameras),
                    presets=tuple(
                        Preset(name, str(values.get(f'presets.{name}') or '')) for name in presets
                    ),
                )
            )

        self._ask(names, on_values)

    def _ask(self, names: Sequence[str], on_values: Callable[[Mapping[str, Any]], None]) -> None:
        asked_s = self._asked_s

        def on_reply(future: Any) -> None:
            response = future.result()
            if response is not None and self._is_wanted and self._asked_s == asked_s:
                given = zip(names, response.values)  # noqa: B905 (fewer values: an odd node)
                on_values({name: _plain(name, value) for name, value in given})

        request = GetParameters.Request(names=list(names))
        self._client.call_async(request).add_done_callback(on_reply)

    def _camera(self, name: str, values: Mapping[str, Any]) -> Camera:
        topic = str(values.get(f'cameras.{name}.topic') or '')
        if topic.startswith('~'):
            topic = self._vlm + topic[1:]
        elif not topic.startswith('/'):
            topic = f'{self._vlm.rpartition("/")[0]}/{topic}'
        return Camera(name, topic, str(values.get(f'cameras.{name}.transport') or ''))


def _plain(name: str, value: Any) -> Any:
    return Parameter.from_parameter_msg(ParameterMsg(name=name, value=value)).value
