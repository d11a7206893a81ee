"""What is left to do for the prefix that is wanted in the KV cache."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from edge_vlm_ros.scheduling.work import Encode, Prefill, PrefixOwner, Prepare, Render

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.core import FeatureKey
    from edge_vlm_ros.scheduling.events import PrefixWanted, Rendered
    from edge_vlm_ros.scheduling.work import Work


class PrefixSteps:
    """The steps of one wish: each frame prepared and encoded, then written, then prefilled.

    Where the conversation that it goes on with has lost its rows in the KV cache, the features of
    its earlier frames may be gone, too: what the prompt then needs of them is encoded again.

    A frame's features come before the next frame's pixels are made, so that pixels do not pile up,
    and before anything of the KV cache is given up for them.

    Args:
        wanted: The wish.
    """

    def __init__(self, wanted: PrefixWanted) -> None:
        self.wanted = wanted
        self.is_ready = False
        self._is_rendered = False
        self._pieces: deque[int] = deque()
        self._prefilled = 0
        self._needed: tuple[FeatureKey, ...] = ()

    @property
    def keys(self) -> tuple[FeatureKey, ...]:
        """Frames whose features are needed: its own, and those of earlier turns."""
        return (*self.wanted.keys, *self._needed)

    @property
    def owner(self) -> PrefixOwner:
        """Whom the work is for."""
        return PrefixOwner(self.wanted.number)

    def next_work(
        self, is_kept: Callable[[FeatureKey], bool], is_prepared: Callable[[FeatureKey], bool]
    ) -> Work | None:
        """Say what to do next; None = it is ready.

        Args:
            is_kept: Whether there are features under a key.
            is_prepared: Whether there are pixels.
        """
        if self.is_ready:
            return None
        if not self._is_rendered:
            missing = next((key for key in self.wanted.keys if not is_kept(key)), None)
            if missing is None:
                return Render(self.owner)
            step = Encode if is_prepared(missing) else Prepare
            return step(self.owner, missing)
        lost = next((key for key in self._needed if not is_kept(key)), None)
        if lost is not None:
            return Encode(self.owner, lost)
        return Prefill(self.owner, self._prefilled, self._prefilled + self._pieces[0])

    def rendered(self, rendered: Rendered) -> None:
        """Take note of what the KV cache lacks of it."""
        self._is_rendered = True
        self._pieces = deque(rendered.pieces)
        self._prefilled = rendered.reused_tokens
        self._needed = rendered.keys
        self.is_ready = not self._pieces

    def appended(self, work: Prefill) -> None:
        """Take note of a piece that is in the KV cache, unless that was given up meanwhile."""
        if not self._is_rendered or not self._pieces or work.start != self._prefilled:
            return
        self._pieces.popleft()
        self._prefilled = work.stop
        self.is_ready = not self._pieces

    def unsettle(self) -> None:
        """Take note that the KV cache may hold something else now: look at it again."""
        self.is_ready = self._is_rendered = False
        self._pieces.clear()
        self._needed = ()
