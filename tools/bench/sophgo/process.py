"""What runs in the process with the emulated chip; this one imports no chip library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tools.bench.sophgo.cases import CASES


def run_cases(names: tuple[str, ...], folder: str) -> list[dict[str, Any]]:
    """Measure cases, in the process with the emulated chip; `Result's as plain data."""
    # The emulator's threads never rest: with real-time priority, which children of the benchmark
    # inherit, they would leave nobody a core, this process included.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    from tools.bench.sophgo.measure import measure_case

    return [measure_case(case, Path(folder)) for case in CASES if case.name in names]
