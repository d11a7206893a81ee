"""Keeps a model off a chip that has too little memory for it: too full, a chip's driver crashes.

What a model takes is not in its files. The vendor measured about 30 % more than the files are
large, and its own runner refuses by that. So there are three checks: by the files before anything
is loaded; by the IO buffers and caches too, once the first layer says how large they are; and
after a few layers by what these have taken, before the driver would find out.

Source: AXERA-TECH/ax-llm, pull requests 50 and 52 (30 %, that overfilling may crash the driver).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edge_vlm_ros.core import DeviceError, ModelFiles
from edge_vlm_ros.engines.axera.backend import OnFile
from edge_vlm_ros.engines.axera.graphs import StackShapes
from edge_vlm_ros.engines.axera.rows import bf16
from edge_vlm_ros.engines.axera.runtime import ShapeGroup

KEPT_FREE: Final = 128 << 20
"""Bytes of the chip's memory that stay free."""
_BESIDES_FILES: Final = 1.3
_LAYERS_FOR_MEASURE: Final = 4
_MIB: Final = 1 << 20
_INDEX_BYTES: Final = 4


def file_bytes(files: ModelFiles) -> int:
    """Sum up what loads onto the chip: all axmodels."""
    return sum(path.stat().st_size for part, path in files.weights.items() if _is_loaded(part))


def needed_bytes(files: ModelFiles) -> int:
    """Say what a set takes of the chip's memory, by what is known before it is loaded.

    The larger of the catalogue's figure, measured by whoever published the set, and of the files
    with what a driver takes besides them.
    """
    return max(files.device_memory_mb * _MIB, round(_BESIDES_FILES * file_bytes(files)))


def in_place_bytes(shapes: StackShapes) -> int:
    """Sum up caches, masks and shared buffers of the backend in place, in one slot."""
    caches = 2 * shapes.layers * bf16(shapes.capacity, shapes.kv_width)
    chunk = max(group.chunk for group in shapes.prefill)
    shared = 2 * bf16(chunk, shapes.hidden) + 2 * bf16(chunk, shapes.kv_width)
    sizes = [(group.chunk, group.history) for group in shapes.prefill]
    sizes += [(1, group.capacity) for group in shapes.decode]
    inputs = sum(
        bf16(tokens, history + tokens) + _INDEX_BYTES * shapes.position_rows * tokens
        for tokens, history in sizes
    )
    return caches + shared + inputs + bf16(shapes.vocab)


def portable_bytes(shapes: StackShapes, groups: Sequence[ShapeGroup]) -> int:
    """Sum up axengine's buffers: for each layer and tensor, what its largest group wants.

    Args:
        shapes: Of the set.
        groups: Of one layer.
    """
    columns = zip(*((*group.inputs, *group.outputs) for group in groups), strict=True)
    layer: int = sum(max(tensor.nbytes for tensor in tensors) for tensors in columns)
    return shapes.layers * layer + bf16(shapes.vocab) + bf16(shapes.hidden)


def buffer_bytes(backend: str, shapes: StackShapes, groups: Sequence[ShapeGroup]) -> int:
    """Sum up IO and caches on the chip.

    Args:
        backend: The option; unless it is 'portable', the way in place is tried.
        shapes: Of the set.
        groups: Of one layer.
    """
    if backend == 'portable':
        return portable_bytes(shapes, groups)
    return in_place_bytes(shapes)


class MemoryGuard:
    """Checks the chip's free memory around the loading of one set.

    Args:
        files: Of the set.
        read_free: Reads how many bytes are free; None = not reported, and nothing is checked.
        where: Where that is reported, for messages.
    """

    def __init__(self, files: ModelFiles, read_free: Callable[[], int | None], where: str) -> None:
        self._files, self._read_free, self._where = files, read_free, where
        self._free_before = 0
        self._is_watched = False
        self._loaded = 0
        self._free_after_first = 0

    def check_files(self) -> None:
        """Refuse by the files; call it before anything is loaded.

        Raises:
            DeviceError: The set needs more than is free.
        """
        free = self._read_free()
        self._is_watched = free is not None
        if free is not None:
            self._free_before = free
            self._refuse_above(free, needed_bytes(self._files), 'for it')

    def check_buffers(self, buffer_bytes: int) -> None:
        """Refuse by files and buffers together.

        Args:
            buffer_bytes: Of IO and caches.

        Raises:
            DeviceError: They need more than was free.
        """
        if self._is_watched:
            needed = file_bytes(self._files) + buffer_bytes
            told = f'for it and {buffer_bytes / _MIB:.0f} MiB of these for its buffers and caches'
            self._refuse_above(self._free_before, needed, told)

    def watch(self, on_layer: OnFile) -> OnFile:
        """Have a few layers tell what all of them take.

        Args:
            on_layer: Called after each decoder layer is loaded.

        Returns:
            What to call in its place; it raises a DeviceError where the rest will not fit.
        """

        def loaded() -> None:
            on_layer()
            self._loaded += 1
            if self._is_watched:
                self._measure()

        return loaded

    def _measure(self) -> None:
        if self._loaded == 1:
            self._free_after_first = self._read_free() or 0
        elif self._loaded == _LAYERS_FOR_MEASURE:
            free = self._read_free() or 0
            taken = max(0, self._free_after_first - free)
            measured, left = self._sizes(1, self._loaded), self._sizes(self._loaded, None)
            needed = round(taken * left / measured) + self._post_bytes()
            self._refuse_above(
                free, needed, f'for the rest, as its first {self._loaded} layers do'
            )

    def _sizes(self, first: int, stop: int | None) -> int:
        """Sum up the files of layers [first, stop)."""
        weights = self._files.weights
        layers = sum(part.startswith('layers.') for part in weights)
        numbers = range(first, layers if stop is None else min(stop, layers))
        return sum(weights[f'layers.{i}'].stat().st_size for i in numbers)

    def _post_bytes(self) -> int:
        return round(_BESIDES_FILES * self._files.weights['post'].stat().st_size)

    def _refuse_above(self, free: int, needed: int, what: str) -> None:
        if needed + KEPT_FREE > free:
            raise DeviceError(
                f'the model needs {needed / _MIB:.0f} MiB of chip memory (CMM) {what}, '
                f'{free / _MIB:.0f} MiB are free ({self._where}), and {KEPT_FREE / _MIB:.0f} MiB '
                'are to stay free, since a driver may crash when there is none: stop other '
                'programs that use the NPU, or choose a smaller model'
            )


def _is_loaded(part: str) -> bool:
    return part != 'embed_tokens'
