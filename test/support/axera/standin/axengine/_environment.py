"""What the environment chooses; read when it is needed, not kept.

EDGE_VLM_AX_LIBRARY    folder with a libax_sys.so and a libax_engine.so, or with a libaxcl_rt.so,
                       to drive through ctypes; without it all are Python (`_python_library`).
EDGE_VLM_AX_PROVIDERS  read at import: 'engine' (on the chip), 'axcl' (a card), 'axcl,engine' or ''
                       (no library found); by default 'engine'.
EDGE_VLM_AX_CHIP       'ax650' (by default) or 'ax630c'.
EDGE_VLM_AX_CARDS      how many cards there are; by default 1.
EDGE_VLM_AX_BF16       '0' = an SDK that does not know bfloat16.
EDGE_VLM_AX_CMM_BYTES  memory of the chip; allocating more fails. By default unbounded.
EDGE_VLM_AX_HANG       a file: while it exists, a card does not come to the end of loading; beside
                       it one with '.waits' after its name says that it waits.
EDGE_VLM_AX_VNPU       mode of the NPU that another program has set, 1 to 3 (Python's library).
EDGE_VLM_AX_NEEDS      modules that the first session imports, too; the package imports cffi.
EDGE_VLM_AX_RUNS       so many runs work and the next ones fail. By default unbounded.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def library_folder() -> Path | None:
    """Where the C libraries lie; None = use Python's."""
    named = os.environ.get('EDGE_VLM_AX_LIBRARY', '')
    return Path(named) if named else None


def providers() -> list[str]:
    """Name the libraries that are found: 'engine', 'axcl'."""
    folder = library_folder()
    if folder and (folder / 'libaxcl_rt.so').is_file():
        return ['axcl']
    if folder and not (folder / 'libax_engine.so').is_file():
        return []
    return os.environ.get('EDGE_VLM_AX_PROVIDERS', 'engine').replace(',', ' ').split()


def chip() -> str:
    """Name the chip."""
    return os.environ.get('EDGE_VLM_AX_CHIP', 'ax650')


def cards() -> int:
    """Count the cards."""
    return int(os.environ.get('EDGE_VLM_AX_CARDS', '1'))


def knows_bf16() -> bool:
    """Whether the SDK knows bfloat16."""
    return os.environ.get('EDGE_VLM_AX_BF16', '1') != '0'


def wait_for_card() -> None:
    """Load for as long as that is asked for."""
    named = os.environ.get('EDGE_VLM_AX_HANG', '')
    while named and Path(named).exists():
        Path(f'{named}.waits').touch()
        time.sleep(0.01)


def vnpu_mode() -> int:
    """Give the virtual mode that another program has set; 0 = none."""
    return int(os.environ.get('EDGE_VLM_AX_VNPU', '0'))


def needs() -> list[str]:
    """Name the modules that a session needs."""
    return os.environ.get('EDGE_VLM_AX_NEEDS', '').split()


def bound(name: str) -> float:
    """Give a number of the environment; unbounded where it is not set."""
    return float(os.environ.get(f'EDGE_VLM_AX_{name}', 'inf'))
