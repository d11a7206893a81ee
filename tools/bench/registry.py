"""Which figures there are. A new one is a module in `figures/` and a line here.

A module has a docstring whose first line says what it measures, and a function `measure()` that
gives out `Figure's. What it cannot do without (ROS, the demo model) it imports in `measure`; what
is on some machines only it looks for there, and raises `NotHereError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import cast

from tools.bench.figure import Figure

MODULES = (
    'start_up',
    'preprocessing',
    'frame_host_work',
    'sampling',
    'demo_model',
    'smolvlm',
    'axera',
    'ahead',
    'watch',
    'sophgo',
    'ends',
    'frame_wait',
    'recovery',
    'node_overhead',
    'camera',
    'node_memory',
)


def choose(only: Iterable[str]) -> tuple[str, ...]:
    """Choose modules by name or beginning of a name; nothing = all.

    Raises:
        ValueError: A name that fits no module.
    """
    wanted = tuple(only)
    for name in wanted:
        if not any(module.startswith(name) for module in MODULES):
            raise ValueError(f'no figures named {name!r}; there are {", ".join(MODULES)}')
    return tuple(m for m in MODULES if not wanted or m.startswith(wanted))


def title_of(module: str) -> str:
    """Say what a module measures."""
    doc = import_module(f'tools.bench.figures.{module}').__doc__ or ''
    return doc.partition('\n')[0]


def measure(module: str) -> Iterator[Figure]:
    """Run one module."""
    run = import_module(f'tools.bench.figures.{module}').measure
    yield from cast('Callable[[], Iterable[Figure]]', run)()
