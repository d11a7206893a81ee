"""Measures the Axera engine on the C stub of a card: prints one JSON object a line.

    python -m tools.bench.axera.on_card

Two drivers run InternVL3-2B's shapes with nine prefill groups in one process: our engine in place,
and on `InferenceSession.run`. The stub sleeps by the latency table and computes nothing; it counts
what crosses to the card and back. Needs a C compiler and, on sys.path, the stand-in axengine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from support.axera.sets import model_files, write_internvl3_2b_nine
from support.axera.stub.build import CARD_LIBRARY
from support.axera.stub.compute import Stub

from edge_vlm_ros.engines import open_engine
from tools.bench.axera.measure import Chip, EngineDriver

STEPS = 12


def main() -> None:
    """Measure both drivers, print what they give."""
    with tempfile.TemporaryDirectory() as made:
        files = model_files(write_internvl3_2b_nine(Path(made)))
        stub = Stub(Path(os.environ['EDGE_VLM_AX_LIBRARY']), CARD_LIBRARY)
        stub.set(cmm_bytes=8 << 30)
        for name, option in (('in place', 'in_place'), ('portable', 'portable')):
            engine = open_engine('ax650', files, options={'backend': option})
            stub.compute_nothing()
            stub.set(delays=1)
            driver = EngineDriver(name, engine)
            driver.first_token(0)
            driver.next_token()
            chip = Chip(stub, ('bytes_to_device', 'bytes_to_host'))
            steps = [chip.cost(driver.next_token) for _ in range(STEPS)]
            found = {
                'driver': name,
                'host_share': median(wall / busy - 1 for wall, busy, *_ in steps),
                'pcie_bytes': round(median(moved for *_, moved, _ in steps)),
            }
            sys.stdout.write(json.dumps(found) + '\n')
            sys.stdout.flush()
            stub.set(delays=0)
            engine.close()


if __name__ == '__main__':
    main()
