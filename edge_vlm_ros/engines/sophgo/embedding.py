"""Token ids to embeddings: by nets on the chip, or from a table on the host's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelFileError, TokenIds
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes
from edge_vlm_ros.engines.sophgo.nets import DType
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


class TokenSlot:
    """One token id on the chip: written by a head or by the host, read by the embedding."""

    def __init__(self, runtime: Runtime) -> None:
        self.tensor = runtime.allocate((1, 1), DType.INT32)
        self._held: int | None = None

    def put(self, token: int) -> None:
        """Have this id on the chip; it is sent only when another one is there."""
        if token != self._held:
            self._held = None
            self.tensor.write(np.array([token], np.int32))
            self._held = token

    def forget(self) -> None:
        """Know no longer which id is on the chip: a head is about to write there."""
        self._held = None

    def take(self) -> int:
        """Read the id that a head has just written."""
        self._held = None
        self._held = int(self.tensor.read()[0])
        return self._held


class Embedding(Protocol):
    """Writes embeddings where the layers read them."""

    def prompt(self, tokens: TokenIds, hidden: DeviceTensor) -> None:
        """Write the embeddings of a prompt's tokens to the first rows of `hidden`."""
        ...

    def step(self, token: int) -> None:
        """Write one token's embedding to the decode nets' hidden state."""
        ...


class ChipEmbedding:
    """The nets `embedding` (a prompt's ids) and `embedding_cache` (one id).

    Args:
        runtime: The model's.
        rows: Ids that `embedding` takes.
        slot: Where one id lies on the chip.
        step_hidden: The decode nets' hidden state.
    """

    def __init__(
        self, runtime: Runtime, rows: int, slot: TokenSlot, step_hidden: DeviceTensor
    ) -> None:
        self._runtime = runtime
        self._ids = runtime.allocate((1, rows), DType.INT32)
        self._slot = slot
        self._step = Launch(runtime, 'embedding_cache', [slot.tensor], [step_hidden])

    def prompt(self, tokens: TokenIds, hidden: DeviceTensor) -> None:
        """Write the embeddings of a prompt's tokens; rows after them hold what is left there."""
        self._ids.write(tokens.astype(np.int32))
        self._runtime.launch('embedding', [self._ids], [hidden])

    def step(self, token: int) -> None:
        """Write one token's embedding to the decode nets' hidden state."""
        self._slot.put(token)
        self._step.run()


class DiskEmbedding:
    """A raw table of half precision values, one row a token id, mapped from a file.

    Args:
        path: `embedding.bin`, as the vendor's converter writes it for --embedding_disk.
        shapes: The decoder's.
        step_hidden: The decode nets' hidden state.

    Raises:
        ModelFileError: It is missing or holds no whole number of rows.
    """

    def __init__(self, path: Path, shapes: DecoderShapes, step_hidden: DeviceTensor) -> None:
        rows_of_table(path, shapes)
        try:
            table = np.memmap(path, np.uint16, 'r')
        except (OSError, ValueError) as error:
            raise ModelFileError(f'{path}: cannot be read: {error}') from error
        self._table: NDArray[Any] = table.reshape(-1, shapes.hidden)
        self._step_hidden = step_hidden

    @property
    def vocab_size(self) -> int:
        """Rows of the table."""
        return len(self._table)

    def prompt(self, tokens: TokenIds, hidden: DeviceTensor) -> None:
        """Look up a prompt's tokens and send their rows."""
        hidden.write(np.asarray(self._table[tokens]).reshape(-1))

    def step(self, token: int) -> None:
        """Look up one token and send its row."""
        self._step_hidden.write(np.asarray(self._table[token]))


def rows_of_table(path: Path, shapes: DecoderShapes) -> int:
    """Count the rows of such a table by its size.

    Raises:
        ModelFileError: It is missing or holds no whole number of rows.
    """
    if not path.is_file():  # a pipe is none
        raise ModelFileError(f'{path}: no such file; the bmodel has no embedding nets')
    nbytes, row = path.stat().st_size, shapes.hidden * shapes.half.nbytes
    if not nbytes or nbytes % row:
        raise ModelFileError(
            f'{path}: expected rows of {shapes.hidden} {shapes.half.value}, found {nbytes} bytes'
        )
    return nbytes // row
