"""Backends that can free a chip beside a step that does not end."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class LetsGo(Protocol):
    """A backend that holds a chip; safe from several threads."""

    def let_go(self) -> None:
        """Free what it holds beside that step; only where the process ends after it.

        What the step then does is undefined; the driver may hang or end the process.
        """
        ...
