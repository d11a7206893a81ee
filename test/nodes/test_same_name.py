"""Two nodes of one name: said once, when the other one appears."""

from __future__ import annotations

from edge_vlm_ros.nodes.same_name import SameName


class Graph:
    """What `SameName` asks of a node; the graph is a list."""

    def __init__(self):
        self.nodes = [('vlm', '/robot'), ('vlm', '/'), ('front', '/robot')]
        self.warnings = []

    def get_name(self):
        return 'vlm'

    def get_namespace(self):
        return '/robot'

    def get_fully_qualified_name(self):
        return '/robot/vlm'

    def get_node_names_and_namespaces(self):
        return self.nodes

    def get_logger(self):
        return self

    def warning(self, text):
        self.warnings.append(text)


def test_another_node_of_the_name_is_said_once_for_each_time_it_comes():
    graph = Graph()
    watch = SameName(graph)
    assert (watch.check(), graph.warnings) == (1, [])
    graph.nodes.append(('vlm', '/robot'))
    assert [watch.check() for _ in range(3)] == [2, 2, 2]
    assert len(graph.warnings) == 1
    assert '2 nodes are named /robot/vlm' in graph.warnings[0]
    graph.nodes.pop()
    assert watch.check() == 1
    graph.nodes.append(('vlm', '/robot'))
    assert (watch.check(), len(graph.warnings)) == (2, 2)
