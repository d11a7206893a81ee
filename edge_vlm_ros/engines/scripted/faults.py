"""Carry out the faults of a script."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.engines.scripted.script import Fault

EXIT_STATUS = 42


class FaultMaker:
    """Counts calls and fails where the script says so.

    Args:
        faults: The script's.
        sleep: Waits that many seconds.
    """

    def __init__(self, faults: Sequence[Fault], sleep: Callable[[float], None]) -> None:
        self._faults = faults
        self._sleep = sleep
        self._calls: Counter[int] = Counter()

    def meet(self, stage: str, question: str = '', token: int | None = None) -> bool:
        """Fail if a fault of the script is due; return whether the chip computes nonsense.

        Raises:
            DeviceError: A fault of kind 'error', or a 'hang' that ended.
        """
        is_nonsense = False
        for number, fault in enumerate(self._faults):
            if fault.at == stage and _selects(fault, question, token):
                count = self._calls[number]
                self._calls[number] += 1
                last = fault.after + fault.times if fault.times else count + 1
                if fault.after <= count < last:
                    if fault.kind == 'nan':
                        is_nonsense = True
                    else:
                        self._fail(fault)
        return is_nonsense

    def _fail(self, fault: Fault) -> None:
        if fault.kind == 'exit':
            os._exit(EXIT_STATUS)
        if fault.kind == 'segfault':
            # Sent to the process, it might be taken by another thread, and later.
            signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
        if fault.kind == 'hang':
            self._sleep(fault.seconds)
        raise DeviceError(fault.message or f'scripted {fault.kind} at {fault.at}')


def _selects(fault: Fault, question: str, token: int | None) -> bool:
    if fault.token is not None and fault.token != token:
        return False
    return not fault.question or bool(re.search(fault.question, question, re.IGNORECASE))
