"""Compile the stub: libax_engine.so, and libax_sys.so as a link to it, for one chip; or a card's.

`python -m support.axera.stub.build [--chip ax630c]` prints the folder that holds both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from support.c_library import CLibrary

SOURCES: Final = Path(__file__).parent
BUILDS: Final = SOURCES.parents[3] / 'build' / 'axera_stub'
CHIPS: Final = {'ax650': (), 'ax630c': ('-DSTUB_AX630C',)}
"""Chips it can be, with the compiler's option for each."""

CARD_LIBRARY: Final = 'libaxcl_rt.so'
_ENGINE: Final = 'libax_engine.so'
_FLAGS: Final = (f'-Wl,-soname,{_ENGINE}',)


def build_stub(chip: str = 'ax650', builds: Path = BUILDS, compiler: str = 'cc') -> Path:
    """Compile the stub, unless the same source was compiled before.

    Args:
        chip: A key of `CHIPS`.
        builds: Keeps one folder for each chip.
        compiler: Any that takes gcc's options.

    Returns:
        The folder with libax_engine.so and libax_sys.so.

    Raises:
        support.c_library.CompilerError: There is no such compiler, or it refused the stub.
    """
    flags = (*_FLAGS, *CHIPS[chip])
    library = CLibrary(SOURCES, _ENGINE, flags, links={'libax_sys.so': _ENGINE})
    return library.build(builds / chip, compiler)


def build_card_stub(builds: Path = BUILDS, compiler: str = 'cc') -> Path:
    """Compile the stub of a card's library; see `build_stub`.

    Returns:
        The folder with libaxcl_rt.so.
    """
    flags = (f'-Wl,-soname,{CARD_LIBRARY}', '-DSTUB_CARD')
    library = CLibrary(SOURCES, CARD_LIBRARY, flags, files=('card.c', 'hooks.c', 'model.c'))
    return library.build(builds / 'card', compiler)


def main() -> None:
    """Build for the chip named on the command line; print the folder."""
    parser = argparse.ArgumentParser(description='Compile the stub of the NPU libraries.')
    parser.add_argument('--chip', choices=tuple(CHIPS), default='ax650')
    print(build_stub(parser.parse_args().chip))


if __name__ == '__main__':
    main()
