"""Ask a robot about what its cameras see (edge_vlm_ros)."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.cli.parser import add_doctor, add_models
from edge_vlm_ros.ros2vlm import words

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITHOUT_A_NODE = ('models', 'doctor')


class VlmCommand:
    """Ask a robot about what its cameras see: ask, describe, watch, cancel, models, doctor."""

    NAME = 'vlm'
    EXTENSION_POINT_VERSION = '0.1'

    def add_arguments(
        self, parser: argparse.ArgumentParser, cli_name: str, *, argv: Sequence[str] | None = None
    ) -> None:
        """Add the verbs; `ros2` calls this."""
        del argv
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        verbs = parser.add_subparsers(
            title='Verbs', dest='verb', metavar=f'{cli_name} <verb> -h says more'
        )
        words.add_verbs(verbs)
        add_models(verbs)
        add_doctor(verbs)

    def main(self, *, parser: argparse.ArgumentParser, args: Any) -> int:
        """Run a verb; `ros2` calls this.

        Returns:
            The exit code, as those of `edge-vlm`.
        """
        if args.verb is None:
            parser.print_help()
            return 0
        if args.verb in _WITHOUT_A_NODE:
            args.command = args.verb
            if 'finish' in args:
                args.finish(args)
            return int(importlib.import_module('edge_vlm_ros.cli.main').run(args))
        # A verb brings rclpy and the messages; `ros2 vlm -h` does not wait for them.
        return int(importlib.import_module('edge_vlm_ros.ros2vlm.verbs').run(args))
