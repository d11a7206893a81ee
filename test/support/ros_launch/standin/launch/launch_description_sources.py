"""Descriptions out of files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from launch import LaunchDescription


class PythonLaunchDescriptionSource:
    """A launch file in Python.

    Args:
        launch_file_path: Where it is.
    """

    def __init__(self, launch_file_path: str) -> None:
        self._path = Path(launch_file_path)

    def description(self) -> LaunchDescription:
        """Run the file; the real one calls this `get_launch_description`."""
        name = self._path.name.replace('.', '_')
        spec = importlib.util.spec_from_file_location(name, self._path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        description = module.generate_launch_description()
        assert isinstance(description, LaunchDescription)
        return description
