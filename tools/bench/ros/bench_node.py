"""Processes that stand beside the node: a camera that only sends, a subscriber that only stores.

    python -m tools.bench.ros.bench_node camera --width 1920 --height 1080 --fps 30 --listeners 2
    python -m tools.bench.ros.bench_node storing
    python -m tools.bench.ros.bench_node bare

Each ends on SIGINT or SIGTERM; the first two then print how many frames they have sent or stored.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from array import array
from collections import deque

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import Image

from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.process_setup import keep_freed_memory, use_shared_memory_profile
from edge_vlm_ros.nodes.spinning import spin_until, stop_on_signals

TOPIC = 'image_raw'
DEPTH = 5
STORED = 20
"""As many 1080p frames as the node's buffer holds (128 MB)."""


def main() -> int:
    """Run one of them until a signal comes."""
    parser = argparse.ArgumentParser(description='a process to measure beside the node')
    parser.add_argument('role', choices=('camera', 'storing', 'bare'))
    parser.add_argument('--width', type=int, default=1920)
    parser.add_argument('--height', type=int, default=1080)
    parser.add_argument('--fps', type=float, default=30.0)
    parser.add_argument('--listeners', type=int, default=1)
    args = parser.parse_args()
    keep_freed_memory()
    use_shared_memory_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    name = f'bench_{args.role}'
    node = LifecycleNode(name) if args.role == 'bare' else Node(name)
    executor.add_node(node)
    with stop_on_signals(executor) as stop:
        if args.role == 'camera':
            _send(node, args, stop)
        elif args.role == 'storing':
            stored: deque[Image] = deque(maxlen=STORED)
            _store(node, stored, executor, stop)
        else:
            print('here', flush=True)
            spin_until(executor, stop)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def _send(node: Node, args: argparse.Namespace, stop: Future[int]) -> None:
    """Send the same pixels with new stamps, once enough listen; no executor is needed for that."""
    publisher = node.create_publisher(Image, TOPIC, qos.camera('best_effort', DEPTH))
    message = Image(width=args.width, height=args.height, step=3 * args.width, encoding='rgb8')
    message.data = array('B', bytes(3 * args.width * args.height))
    message.header.frame_id = 'camera_optical_frame'
    waiting = threading.Event()
    while publisher.get_subscription_count() < args.listeners and not stop.done():
        waiting.wait(0.05)
    waiting.wait(0.5)  # the other side has to find this one, too
    sent = 0
    started_s = time.monotonic()
    while not stop.done():
        waiting.wait(max(0.0, started_s + sent / args.fps - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        sent += 1
    waiting.wait(0.5)  # the last one is on its way
    print('frames', sent, flush=True)


def _store(
    node: Node,
    stored: deque[Image],
    executor: SingleThreadedExecutor,
    stop: Future[int],
) -> None:
    """Keep the newest messages, and nothing else."""
    count = 0

    def store(message: Image) -> None:
        nonlocal count
        stored.append(message)
        count += 1

    node.create_subscription(Image, TOPIC, store, qos.camera('best_effort', DEPTH))
    print('here', flush=True)
    spin_until(executor, stop)
    print('frames', count, flush=True)


if __name__ == '__main__':
    sys.exit(main())
