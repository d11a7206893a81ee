"""`python -m edge_vlm_ros.ros2vlm`: as `ros2 vlm`, where the `ros2` command is not installed."""

from __future__ import annotations

import argparse
import sys

from edge_vlm_ros.ros2vlm.command import VlmCommand


def main() -> int:
    """Run one verb; return the exit code."""
    command = VlmCommand()
    parser = argparse.ArgumentParser('ros2 vlm', description=VlmCommand.__doc__)
    command.add_arguments(parser, 'ros2 vlm')
    return command.main(parser=parser, args=parser.parse_args())


if __name__ == '__main__':
    sys.exit(main())
