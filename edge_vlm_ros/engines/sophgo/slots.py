"""Slots of the KV cache: rows of those that are not selected, in memory of their own.

Nets read their cache where they were compiled or bound to, so a slot is selected by changing rows
places on the chip: those that count, layer by layer. For Qwen2-VL 7B and 1500 tokens these are
86 MB each way, some milliseconds, where to prefill them anew takes seconds. Nothing of it passes
the host, and no bit changes.

Only for layers that attend to their own tokens: of the image that others attend to, more would
have to be kept (210 MB for Llama 3.2 Vision, and what was sent of it).
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


def offer_slots(wanted: int, shapes: DecoderShapes, free_bytes: int | None) -> int:
    """Say how many slots a model may have.

    Args:
        wanted: So many at most; 0 = 2 where the chip is known to have memory for two more, since
            other programs want some, too; else 1.
        shapes: Of its decoder.
        free_bytes: Device memory that is free; None = not known.
    """
    if shapes.cross is not None:
        return 1
    return wanted or (2 if (free_bytes or 0) >= 2 * shapes.cache_bytes else 1)


class ParkedRows:
    """The rows of slots that are not selected.

    Args:
        runtime: Allocates.
        shapes: The decoder's.
        caches: Of all layers: what the nets read and write, the selected slot's.
    """

    def __init__(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> None:
        self._runtime, self._shapes = runtime, shapes
        self._caches = [tensor for cache in caches for tensor in (cache.keys, cache.values)]
        self._between: DeviceTensor | None = None
        self._parked: dict[int, list[DeviceTensor]] = {}

    def make_room(self, slot: int) -> None:
        """Take memory for one more slot, unless there is some for this one.

        Raises:
            DeviceError: The device has too little; nothing of it is kept.
        """
        if slot not in self._parked:
            self._parked[slot] = self._take()

    def change(self, old: int, old_rows: int, new: int, new_rows: int) -> None:
        """Park the rows of one slot, and bring those of another one to where the nets read.

        Args:
            old: The selected one.
            old_rows: How many of its rows count.
            new: Another one, that there is room for.
            new_rows: How many of its rows count.

        Raises:
            DeviceError: A copy failed: nobody knows what either slot holds.
        """
        assert self._between is not None
        parked = self._parked.pop(new)
        self._parked[old] = parked
        row = self._shapes.row_size
        for cache, other in zip(self._caches, parked, strict=True):
            if old_rows:
                self._between.copy_from(cache, 0, 0, old_rows * row)
            if new_rows:
                cache.copy_from(other, 0, 0, new_rows * row)
            if old_rows:
                other.copy_from(self._between, 0, 0, old_rows * row)

    def _take(self) -> list[DeviceTensor]:
        shapes = self._shapes
        taken: list[DeviceTensor] = []
        try:
            if self._between is None:
                self._between = self._runtime.allocate(shapes.kv(shapes.context), shapes.half)
            for cache in self._caches:
                taken.append(self._runtime.allocate(cache.shape, shapes.half))  # noqa: PERF401
        except DeviceError:
            for tensor in taken:
                tensor.release()
            raise
        return taken
