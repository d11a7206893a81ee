"""A chip without axengine: the stub, initialised as long as a test or a benchmark wants it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_vlm_ros.engines.axera.library import Library, NpuAttr
from support.axera.stub.build import build_stub
from support.axera.stub.compute import Stub


@contextmanager
def stub_chip(chip: str = 'ax650', *, computes: bool = True) -> Iterator[tuple[Stub, Library]]:
    """Initialise the stub as importing axengine would, and shut it down again.

    Args:
        chip: 'ax650' or 'ax630c'.
        computes: Whether runs compute; otherwise outputs become zeros.

    Yields:
        The hooks, all counters and options as at the start, and the library.

    Raises:
        AssertionError: At the end chip memory or handles were left behind, or the stub had to
            refuse the shut-down.
    """
    folder: Path = build_stub(chip)
    stub = Stub(folder)
    stub.reset_options()
    stub.reset_counts()
    if computes:
        stub.compute()
    else:
        stub.compute_nothing()
    assert stub.library.AX_SYS_Init() == 0
    assert stub.library.AX_ENGINE_Init(ctypes.byref(NpuAttr())) == 0
    try:
        yield stub, Library(folder)
        left = {name: stub.count(name) for name in ('blocks', 'handles')}
        assert not any(left.values()), f'left behind: {left}'
    finally:
        assert stub.library.AX_ENGINE_Deinit() == 0
        assert stub.library.AX_SYS_Deinit() == 0
        stub.compute_nothing()
