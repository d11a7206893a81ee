"""Only what every distribution's rclpy has is used: Humble to Lyrical."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Not in Humble's rclpy 3.3, as its branch was read: attributes, keywords and modules.
TOO_NEW_NAMES = {
    'AsyncParameterClient',
    'BEST_AVAILABLE',
    'EventsExecutor',
    'MessageInfo',
    'ParameterEventHandler',
    'TimerInfo',
    'add_post_set_parameters_callback',
    'add_pre_set_parameters_callback',
    'configure_introspection',
    'ignore_local_publications',
    'wait_for_node',
}
TOO_NEW_KEYWORDS = {
    'create_node': {'enable_logger_service'},
    'create_timer': {'autostart'},
    '__init__': {'enable_logger_service'},
    'call': {'timeout_sec'},
}
# Renamed after Humble: imported where an ImportError has another branch.
TOO_NEW_MODULES = {'rclpy.event_handler', 'rclpy.experimental', 'rclpy.parameter_client'}
FILES = sorted(
    file
    for folder in ('nodes', 'demo')
    for file in (ROOT / 'edge_vlm_ros' / folder).rglob('*.py')
    if 'rclpy' in file.read_text()
)


def guarded(tree):
    """Return the nodes that stand in a `try` with a branch for ImportError."""
    tries = [n for n in ast.walk(tree) if isinstance(n, ast.Try)]
    for node in tries:
        names = [ast.unparse(h.type) for h in node.handlers if h.type is not None]
        if 'ImportError' in names:
            yield from (inner for part in node.body for inner in ast.walk(part))


def too_new(tree):
    """Return what of a source Humble's rclpy lacks."""
    safe = set(guarded(tree))
    for node in ast.walk(tree):
        if node in safe:
            continue
        if isinstance(node, ast.ImportFrom):
            yield from {node.module} & TOO_NEW_MODULES
            yield from {alias.name for alias in node.names} & TOO_NEW_NAMES
        elif isinstance(node, ast.Attribute):
            yield from {node.attr} & TOO_NEW_NAMES
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func).rpartition('.')[2]
            yield from {k.arg for k in node.keywords} & TOO_NEW_KEYWORDS.get(function, set())
        elif isinstance(node, ast.With):
            made = [ast.unparse(item.context_expr) for item in node.items]
            yield from (text for text in made if text.startswith('rclpy.init('))


@pytest.mark.parametrize('file', FILES, ids=lambda f: f.name)
def test_a_node_uses_what_humble_has(file):
    assert sorted(too_new(ast.parse(file.read_text()))) == []


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('from rclpy.event_handler import PublisherEventCallbacks', 'rclpy.event_handler'),
        ('profile.reliability = ReliabilityPolicy.BEST_AVAILABLE', 'BEST_AVAILABLE'),
        ('node.create_timer(1.0, tick, autostart=False)', 'autostart'),
        ('with rclpy.init(args=None): pass', 'rclpy.init(args=None)'),
    ],
)
def test_what_humble_lacks_is_seen_unless_it_is_guarded(source, name):
    assert list(too_new(ast.parse(source))) == [name]
    guard = f'try:\n    {source}\nexcept ImportError:\n    pass'
    assert list(too_new(ast.parse(guard))) == []


def test_the_files_that_know_ros_are_looked_at():
    assert {'vlm_node.py', 'camera_node.py', 'qos.py', 'run.py'} <= {f.name for f in FILES}
