"""YAML files of a model's folder, read within bounds.

A module of its own: who holds a model in another process loads `core`, and must not pay for YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edge_vlm_ros.core.bounded_files import DEEPEST, SCRIPT_BYTES, check_depth, read_bounded
from edge_vlm_ros.core.errors import ModelFileError


def read_yaml_file(path: Path) -> object:
    """Read a YAML file of plain values.

    Raises:
        ModelFileError: As `read_bounded`, or it is no YAML, is nested too deep or stands for too
            many values.
    """
    data = read_bounded(path, SCRIPT_BYTES)
    try:
        values: object = yaml.load(data.decode('utf-8'), _BoundedLoader)  # noqa: S506 (a safe one)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
        raise ModelFileError(f'{path}: cannot be read as YAML: {error}') from error
    check_depth(path, values)
    return values


class _BoundedLoader(yaml.SafeLoader):
    """Plain values only, nested so deep at most."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value and those inside it."""
        if self._depth > DEEPEST:
            raise ValueError(f'nested more than {DEEPEST} deep')
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1
