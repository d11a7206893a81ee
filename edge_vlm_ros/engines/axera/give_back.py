"""Chip memory that axengine took, given back.

On the chip itself the package never frees its IO buffers, and destroys its handles in __del__,
after the engine was shut down at exit. So both are done here, through attributes that are its
own business: each is looked for first, and what cannot be freed is said once.

Source: AXERA-TECH/pyaxengine, 0.1.3 (_axe.py, _axclrt.py).
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

from edge_vlm_ros.engines.vendor_words import brief

_log = logging.getLogger(__name__)

_is_leak_told = False


def free(vendor: Any) -> None:
    """Free the buffers and the handle of one InferenceSession."""
    session = getattr(vendor, '_sess', None)
    unload = getattr(session, '_unload', None)
    if not callable(unload):
        _tell_leak('it has no _unload')
        return
    try:
        _free_pools(session)
        unload()
    except Exception as error:  # noqa: BLE001 (the package's and the driver's own)
        _tell_leak(brief(error))
        return
    with contextlib.suppress(AttributeError):
        # __del__ calls it again: after the engine's end, and on a handle that is gone.
        session._unload = _nothing  # type: ignore[union-attr]  # noqa: SLF001


def _free_pools(session: Any) -> None:
    """Free the IO buffers of a session on the chip itself; a card's are freed by `_unload`."""
    library = getattr(sys.modules.get(type(session).__module__), 'sys_lib', None)
    if library is None:
        return
    for name in ('_io_inputs_pool', '_io_outputs_pool'):
        pool = getattr(session, name, None)
        while pool:
            physical, virtual = pool.pop()
            if physical[0]:
                library.AX_SYS_MemFree(physical[0], virtual[0])


def free_unfinished(error: Exception) -> None:
    """Free what a constructor had allocated before it failed: only its own frame knows it.

    What it leaves behind is destroyed like a whole one when it is collected: the package then
    complains on standard error of attributes that it never got, or destroys a handle that is gone.
    """
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get('self')
        if callable(getattr(owner, '_unload', None)):
            _free_half_made(owner)
        trace = trace.tb_next


def _free_half_made(session: Any) -> None:
    with contextlib.suppress(Exception):
        _free_pools(session)
    with contextlib.suppress(Exception):
        if _has_handle(session):
            session._unload()  # noqa: SLF001
    with contextlib.suppress(Exception):
        session._unload = _nothing  # noqa: SLF001
    _quieten(type(session))


def _has_handle(session: Any) -> bool:
    """Return whether a half-made session holds a file of the chip's."""
    places = (getattr(session, name, None) for name in ('_handle', '_model_id'))
    return any(bool(place[0]) for place in places if place is not None)


def _quieten(kind: Any) -> None:
    """Let the objects of a class be collected without a word, whatever state they are in."""
    destroy = getattr(kind, '__del__', None)
    if destroy is None or getattr(destroy, 'is_quiet', False):
        return

    def quietly(session: Any) -> None:
        try:
            destroy(session)
        except Exception as error:  # noqa: BLE001 (Python would print it, and go on likewise)
            _log.debug('a session that was never whole: %s', brief(error))

    quietly.is_quiet = True  # type: ignore[attr-defined]
    kind.__del__ = quietly


def _nothing() -> None:
    """Take the place of a method that must not run again."""


def _tell_leak(why: str) -> None:
    global _is_leak_told  # noqa: PLW0603 (once a process)
    if not _is_leak_told:
        _is_leak_told = True
        _log.warning(
            'this axengine gives no chip memory back (%s): on a board it is free when that is '
            'started again, on a card when the process ends',
            why,
        )
