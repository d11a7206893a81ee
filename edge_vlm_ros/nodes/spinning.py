"""Spin until told to stop: signals end the loop in order, never inside a callback.

rclpy's own signal handlers shut its context down at once; nothing could then be published any
more, and every open request is owed a final chunk. So rclpy is started without them, and SIGINT,
SIGTERM and SIGHUP complete a future that the loop looks at.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.task import Future

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rclpy.executors import Executor

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RCLError = rclpy_implementation.RCLError
InvalidHandle = rclpy_implementation.InvalidHandle


@contextmanager
def stop_on_signals(executor: Executor) -> Iterator[Future[int]]:
    """Give a future that SIGINT, SIGTERM and SIGHUP complete; from the main thread only.

    A signal that is ignored when the process starts (SIGHUP, with nohup) stays so.

    Python runs signal handlers between two of its own steps, but a waiting executor is in C code.
    The wake-up descriptor is written to by the C handler at once, and a thread that reads it wakes
    the executor.
    """
    stop: Future[int] = Future()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not stop.done():
            stop.set_result(number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wake() -> None:
        while os.read(reading, 16) != b'':
            end_wait(executor)

    thread = threading.Thread(target=wake, name='signals', daemon=True)
    thread.start()
    before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    heard = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(writing)
        thread.join()
        os.close(reading)


def end_wait(executor: Executor) -> None:
    """Make a waiting `spin_once` return; from any thread.

    `Executor.wake` alone does not: the executor then looks for work, and waits on without any.
    """
    executor.create_task(_nothing)


def _nothing() -> None:
    """Be work for an executor."""


def spin_until(executor: Executor, *futures: Future[Any]) -> None:
    """Run callbacks until one of the futures is done.

    Whoever completes one on another thread calls `end_wait`.
    A reply that cannot be sent, because its client has gone, is logged and nothing more.
    """
    while not any(future.done() for future in futures):
        _spin_once(executor)


def spin_while(executor: Executor, condition: Callable[[], bool], timeout_s: float) -> None:
    """Run callbacks while a condition holds, for `timeout_s` seconds at most."""
    deadline = time.monotonic() + timeout_s
    while condition() and time.monotonic() < deadline:
        _spin_once(executor, 0.02)


def _spin_once(executor: Executor, timeout_s: float | None = None) -> None:
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except (RCLError, InvalidHandle) as error:
        get_logger('edge_vlm_ros').warning(f'the middleware refused: {error}')
    except ExternalShutdownException:
        raise SystemExit(0) from None
