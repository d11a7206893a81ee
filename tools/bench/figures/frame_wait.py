"""How soon a request that waits for a camera's frame ends, cancelled or out of time, over ROS.

Its camera never sends. From calling the cancel service, or from the end of the request's time, to
its reply; the worst of several.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tools.bench.figure import Figure

if TYPE_CHECKING:
    from tools.bench.ros.client import Bench

ROUNDS = 20
WAITED_S = 0.1
TIMEOUT_S = 0.3


def measure() -> Iterator[Figure]:
    """Ask about a camera that nobody has, and take it back."""
    from tools.bench.ros.client import Bench, ros_of_its_own

    with ros_of_its_own(), Bench() as bench:
        bench.start_node(chip='scripted', frame_wait_s='60.0')
        bench.connect()
        cancels = [_cancel_ms(bench) for _ in range(ROUNDS)]
        late = [_late_ms(bench) for _ in range(ROUNDS)]
    yield Figure('cancel_frame_wait_worst', max(cancels), 'ms', goal='value < 200')
    yield Figure('deadline_frame_wait_late_worst', max(late), 'ms', goal='value < 50')


def _cancel_ms(bench: Bench) -> float:
    reply = bench.ask_later('What do you see?')
    stop_s = time.monotonic() + WAITED_S
    bench.spin_until(lambda: time.monotonic() > stop_s)
    started_s = time.monotonic()
    bench.cancel()
    bench.spin_until(reply.done)
    return 1e3 * (time.monotonic() - started_s)


def _late_ms(bench: Bench) -> float:
    stop_s = time.monotonic() + TIMEOUT_S
    reply = bench.ask_later('What do you see?', timeout_s=TIMEOUT_S)
    bench.spin_until(reply.done)
    return max(0.0, 1e3 * (time.monotonic() - stop_s))
