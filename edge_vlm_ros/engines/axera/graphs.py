"""What a set of axmodels holds: shape groups, read by tensor name and shape, and their masks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefillGroup:
    """A shape group that takes a chunk behind a history.

    Attributes:
        index: The group's number in the file.
        chunk: Tokens of one run.
        history: Cache rows it sees; 0 = the first chunk's group, whose cache inputs are dummies.
    """

    index: int
    chunk: int
    history: int


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """A shape group that takes one token.

    Attributes:
        index: The group's number in the file.
        capacity: Cache rows it sees; column `capacity` of the mask is the token itself.
    """

    index: int
    capacity: int


@dataclass(frozen=True, slots=True)
class StackShapes:
    """What all decoder layers and the head of a set have in common.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the hidden state.
        kv_width: KV heads x head_dim; one cache row of one layer has so many bfloat16 for K and
            as many for V.
        vocab: Logits of the head.
        position_rows: 1, or 3 where the model takes M-RoPE.
        prefill: By history, shortest first; at least one.
        decode: By capacity, smallest first; at least one.
    """

    layers: int
    hidden: int
    kv_width: int
    vocab: int
    position_rows: int
    prefill: tuple[PrefillGroup, ...]
    decode: tuple[DecodeGroup, ...]

    @property
    def capacity(self) -> int:
        """Rows of the largest cache: prompt and answer together."""
        return self.decode[-1].capacity
