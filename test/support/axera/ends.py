"""A chip of Axera on its own board, whose driver takes nothing back from a process that is gone.

`python -m support.axera.ends KIND` prints the table: for each end what is on record in the stub's
ledger when the process is gone. KIND is one of `support.axera.sets`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

from support.axera.stub.build import build_stub
from support.ends import ENDS, ROOT, Chip

STAND_IN: Final = Path(__file__).parent / 'standin'
_LOAD_US: Final = 50_000


def axera_chip(folder: Path, model: Path, cmm_bytes: int = 1 << 32) -> Chip:
    """Make one.

    Args:
        folder: For its files.
        model: Folder of an axmodel set.
        cmm_bytes: Size of its memory.
    """
    info = folder / 'mem_cmm_info'
    free = f'{cmm_bytes >> 10}KB({cmm_bytes >> 20}MB'
    info.write_text(f' total size={free}),used=0KB(0MB + 0KB),remain={free} + 0KB)\n')
    variables = {
        'EDGE_VLM_AX_LIBRARY': str(build_stub('ax650')),
        'EDGE_VLM_AX_CMM_INFO': str(info),
        'AX_STUB_LEDGER': str(folder / 'ledger'),
        'AX_STUB_CMM_INFO': str(info),
        'AX_STUB_CMM_BYTES': str(cmm_bytes),
        'AX_STUB_LOAD_US': str(_LOAD_US),
        'AX_STUB_HANG': str(folder / 'hang'),
    }
    return Chip('ax650', model, folder, variables, (STAND_IN, ROOT, ROOT / 'test'))


def main() -> None:
    """Print the table."""
    from support.axera.sets import KINDS

    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('kind', choices=tuple(KINDS), nargs='?', default='tiny')
    parser.add_argument('--only', default='', help='part of the name of an end')
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chip = axera_chip(Path(folder), KINDS[chosen.kind](Path(folder) / 'model'))
        for end in ENDS:
            if chosen.only in end.__name__:
                left = chip.left_by(end)
                said = str(end.__doc__).rstrip('.')
                print(
                    f'{said:62} {left.handles:3} handles {left.blocks:4} blocks '
                    f'{left.starts} starts {left.bytes / 2**20:8.1f} MiB',
                    flush=True,
                )


if __name__ == '__main__':
    main()
