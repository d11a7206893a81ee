"""ROS: the `vlm` and `camera` nodes, and all that maps messages to our words. Nothing clever.

Names are looked up when first used, so that the modules here that are free of ROS (`health`,
`process_setup`, ...) can be imported where there is none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vlm_ros.nodes.camera_node import CameraNode
    from edge_vlm_ros.nodes.vlm_node import VlmNode

__all__ = ['CameraNode', 'VlmNode']

_MODULES = {'CameraNode': 'camera_node', 'VlmNode': 'vlm_node'}


def __getattr__(name: str) -> object:
    """Import the module that holds a public name (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{module}'), name)
