"""What a model process prints and logs, read as it comes. The supervising thread's."""

from __future__ import annotations

import select
from collections.abc import Iterable

from edge_vlm_ros.core import Clock
from edge_vlm_ros.serving.process.launcher import OUTPUT_NAMES, Child
from edge_vlm_ros.serving.process.printed import Dam, LogLine, OnLog


class Hearing:
    """Waits for a child's words, and passes on those that are not messages.

    Args:
        child: Who speaks.
        least_level: Least level of what is passed on.
        on_log: Given it.
        clock: Steady time.
    """

    def __init__(self, child: Child, least_level: int, on_log: OnLog, clock: Clock) -> None:
        self._child = child
        self._least_level = least_level
        self._clock = clock
        # Each source has its own: prints without end do not keep back what is logged.
        self._dams = {name: Dam(on_log) for name in (*OUTPUT_NAMES, '')}

    def poll(self, *more: int) -> select.poll:
        """Make what waits for the child and for other descriptors."""
        poll = select.poll()  # Not `select.select`: that ends at descriptor 1023.
        over = {output.descriptor for output in self._child.outputs if output.is_over}
        printed = {output.descriptor for output in self._child.outputs} - over
        for descriptor in (self._child.channel.fileno(), *printed, *more):
            poll.register(descriptor, select.POLLIN)
        return poll

    def wait(self, poll: select.poll, timeout_s: float | None) -> set[int]:
        """Wait for something to read; log what was printed; return what is readable."""
        ready = {fd for fd, _ in poll.poll(None if timeout_s is None else 1e3 * timeout_s)}
        for output in self._child.outputs:
            if output.descriptor in ready:
                self.log_all(output.read())
                if output.is_over:
                    poll.unregister(output.descriptor)
        return ready

    def log_all(self, lines: Iterable[LogLine]) -> None:
        """Pass lines on."""
        for line in lines:
            if line.level >= self._least_level:
                dam = self._dams.get(line.name) or self._dams['']
                dam.put(line, self._clock.now_ns())

    def end(self) -> None:
        """Pass on what is left."""
        for output in self._child.outputs:
            self.log_all([*output.read(), *output.rest()])
        for dam in self._dams.values():
            dam.end()
