"""An order to break: a file that the test writes, and that whoever breaks takes away."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge_vlm_ros.core import DeviceError

ORDER_FILE: Final = 'EDGE_VLM_TEST_ORDER'
HANG_S: Final = 3600.0
SLOW_S: Final = 0.3
_LOOK_S: Final = 0.01
_WAIT_S: Final = 120.0


class PanicError(BaseException):
    """As pyo3 raises for a panic in Rust."""


@dataclass(frozen=True, slots=True)
class Order:
    """How to break.

    Attributes:
        stage: In which: 'load', 'decode image', 'encode', 'prefill', 'first token', 'decode' or
            'close'.
        kind: 'error', 'crash', 'hang', 'wrong' (not a number), 'memory', 'panic' or 'slow'.
        calls: Of that stage that are let through first.
        waits: Whether it waits for `go` before it breaks.
    """

    stage: str
    kind: str
    calls: int = 0
    waits: bool = False


def give(order: Order, file: Path) -> None:
    """Order the next model process, or the one that runs, to break."""
    _go_file(file).unlink(missing_ok=True)
    made = file.with_suffix('.new')
    made.write_text(json.dumps(asdict(order)), encoding='utf-8')
    made.replace(file)


def go(file: Path) -> None:
    """Let an order be carried out that waits."""
    _go_file(file).touch()


class Orders:
    """The orders as a model process sees them.

    Args:
        file: Of the test.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._calls = 0

    def take(self, stage: str) -> str:
        """Return the kind of fault that is due in a stage now; '' = none. Each is due once."""
        try:
            order = Order(**json.loads(self._file.read_text(encoding='utf-8')))
        except FileNotFoundError:
            self._calls = 0
            return ''
        if order.stage != stage:
            return ''
        self._calls += 1
        if self._calls <= order.calls:
            return ''
        self._calls = 0
        self._file.unlink()
        if order.waits:
            self._wait()
        return order.kind

    def _wait(self) -> None:
        stop_s = time.monotonic() + _WAIT_S
        while not _go_file(self._file).exists() and time.monotonic() < stop_s:
            time.sleep(_LOOK_S)


def orders() -> Orders:
    """Return the orders to this process."""
    return Orders(Path(os.environ[ORDER_FILE]))


def carry_out(kind: str) -> None:
    """Break; 'wrong' is for who has the numbers."""
    if kind == 'error':
        raise DeviceError('ordered to fail')
    if kind == 'crash':
        signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
    if kind == 'hang':
        _sit_in_native_code(HANG_S)
    if kind == 'memory':
        np.empty(1 << 60, np.uint8)
    if kind == 'panic':
        raise PanicError('ordered to panic')
    if kind == 'slow':
        time.sleep(SLOW_S)


def _sit_in_native_code(seconds: float) -> None:
    """Hang as a driver does that keeps Python's lock: no thread of the process runs any more."""
    with contextlib.suppress(AttributeError):
        ctypes.PyDLL(None).usleep(ctypes.c_uint32(round(seconds * 1e6)))


def _go_file(file: Path) -> Path:
    return file.with_suffix('.go')
