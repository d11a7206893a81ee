"""Two nodes of one name on the graph: services, topics and parameters of both get mixed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node


class SameName:
    """Warns once for each time that another node of this node's full name appears.

    Args:
        node: Whose name it is.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._most = 1

    def check(self) -> int:
        """Count the nodes of this name, this one included; warn when there are more than before.

        Call now and then, on the executor's thread: others are discovered after the start.
        """
        name, namespace = self._node.get_name(), self._node.get_namespace()
        others = self._node.get_node_names_and_namespaces()
        count = max(1, sum(found == (name, namespace) for found in others))
        if count > self._most:
            full = self._node.get_fully_qualified_name()
            self._node.get_logger().warning(
                f'{count} nodes are named {full}: questions and parameters reach any of them; '
                'give each a name or a namespace of its own (__node:=, __ns:=)'
            )
        self._most = count
        return count
