"""A ROS client for the figures: starts the node, asks it, reads its diagnostics."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, final

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from edge_vlm_ros.srv import Ask, Cancel  # noqa: TID251 (a ROS client, as users write them)
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from edge_vlm_ros.demo.processes import StartedProcess, StartedProcesses

TIMEOUT_S = 60.0


@contextmanager
def ros_of_its_own() -> Iterator[None]:
    """Keep the processes of one figure apart from every other ROS system."""
    before = dict(os.environ)
    os.environ['ROS_DOMAIN_ID'] = str(random.randint(1, 101))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@final
class Bench:
    """Processes and a client of one figure; all gone at the end.

    Use it inside `ros_of_its_own`.
    """

    def __init__(self) -> None:
        self.children = StartedProcesses()
        self._logs = tempfile.TemporaryDirectory(prefix='edge_vlm_bench_')
        self._context = rclpy.Context()
        self._state = ''
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._diagnosed_ns = 0

    def start(self, module: str, *words: str) -> StartedProcess:
        """Start a Python module as a process; before `connect`, for it forks."""
        log = Path(self._logs.name) / f'{len(self.children.running)}.log'
        return self.children.start(module, module, words, dict(os.environ), log)

    def start_node(self, **parameters: str) -> StartedProcess:
        """Start the vlm node."""
        return self.start('edge_vlm_ros.nodes.vlm_main', *as_parameters(parameters))

    def connect(self) -> None:
        """Join the ROS graph and wait until the node is ready."""
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('bench', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(String, 'vlm/state', self._on_state, latched)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._client: Any = self._node.create_client(Ask, 'ask')
        self._canceller: Any = self._node.create_client(Cancel, 'vlm/cancel')
        self.spin_until(lambda: self._state == 'ready' and self._client.service_is_ready())

    def ask(self, question: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Ask about the newest frame of the camera, return the Answer message.

        Raises:
            RuntimeError: The question was not answered well.
        """
        call = self.ask_later(question)
        self._executor.spin_until_future_complete(call, timeout_sec=timeout_s)
        if not call.done() or not call.result().success:
            raise RuntimeError(f'no answer within {timeout_s} s, or an error: {call.result()}')
        return call.result().answer

    def ask_later(self, question: str, **fields: Any) -> Any:
        """Ask; return the future of the reply."""
        return self._client.call_async(Ask.Request(question=question, **fields))

    def cancel(self) -> None:
        """Cancel all requests; the node's word for it is not waited for."""
        self._canceller.call_async(Cancel.Request())

    def next_diagnostics(self) -> dict[str, dict[str, str]]:
        """Wait for diagnostics that are made from now on: values by name of the status."""
        asked_ns = time.time_ns()  # the node's ROS time is the system's
        self.spin_until(lambda: self._diagnosed_ns > asked_ns)
        return self.diagnostics

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Let messages come in until a condition holds.

        Raises:
            RuntimeError: It did not in time, or a process has ended.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._executor.spin_once(timeout_sec=0.05)
            ended = self.children.ended()
            if ended is not None:
                lines = '\n'.join(ended.last_lines())
                raise RuntimeError(f'{ended.name} ended with {ended.returncode}:\n{lines}')
            if time.monotonic() > deadline:
                raise RuntimeError(f'nothing came within {timeout_s} s')

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._context.ok():
            self._executor.shutdown()
            self._node.destroy_node()
            self._context.try_shutdown()
        self.children.__exit__(kind, error, trace)
        self._logs.cleanup()

    def _on_state(self, message: Any) -> None:
        self._state = message.data

    def _on_diagnostics(self, message: Any) -> None:
        stamp = message.header.stamp
        self._diagnosed_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        for status in message.status:
            self.diagnostics[status.name] = {pair.key: pair.value for pair in status.values}


def as_parameters(values: dict[str, str]) -> Sequence[str]:
    """Return the words that set parameters of a node."""
    return ['--ros-args', *(w for name, v in values.items() for w in ('-p', f'{name}:={v}'))]
