"""Ask a robot about what its cameras see (edge_vlm_ros)."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.ros2vlm import words

if TYPE_CHECKING:
    from collections.abc import Sequence

_PASSED_ON = {
    'models': 'List the models of the catalogue, and fetch them; as `edge-vlm models`.',
    'doctor': 'Say what this machine can run, and what is missing; as `edge-vlm doctor`.',
}


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
        for name, about in _PASSED_ON.items():
            verb = verbs.add_parser(name, description=about, help=about, add_help=False)
            verb.add_argument('rest', nargs=argparse.REMAINDER, help='as of edge-vlm')

    def main(self, *, parser: argparse.ArgumentParser, args: Any) -> int:
        """Run a verb; `ros2` calls this.

        Returns:
            The exit code, as those of `edge-vlm`.
        """
        if args.verb is None:
            parser.print_help()
            return 0
        if args.verb in _PASSED_ON:
            cli = importlib.import_module('edge_vlm_ros.cli.main')
            return int(cli.main([args.verb, *args.rest]))
        # A verb brings rclpy and the messages; `ros2 vlm -h` does not wait for them.
        return int(importlib.import_module('edge_vlm_ros.ros2vlm.verbs').run(args))
