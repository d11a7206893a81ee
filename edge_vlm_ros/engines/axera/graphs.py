"""What a set of axmodels holds: shape groups, read by tensor name and shape.

Nothing says how many groups there are or what for: a group of one token is a decode group, any
other a prefill group, and how much history it takes shows in its mask (the first chunk's cache
inputs are dummies). Sizes differ between builds, names and order between compilers.

Source: AXERA-TECH/InternVL3-2B.axera and ax-llm (names, shapes, group table).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.axera.runtime import BFLOAT16, ShapeGroup, TensorInfo


@dataclass(frozen=True, slots=True)
class PrefillGroup:
    """A shape group that takes a chunk after a history.

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
        step_rows: The same of decode groups: 1 where a build with M-RoPE expects that a token
            which is decoded stands at one place on all three axes, as words do.
        prefill: By history, shortest first; at least one.
        decode: By capacity, smallest first; at least one.
    """

    layers: int
    hidden: int
    kv_width: int
    vocab: int
    position_rows: int
    step_rows: int
    prefill: tuple[PrefillGroup, ...]
    decode: tuple[DecodeGroup, ...]

    @property
    def capacity(self) -> int:
        """Rows of the largest cache: prompt and answer together."""
        return self.decode[-1].capacity

    @property
    def steps_words_only(self) -> bool:
        """Whether an image's tokens cannot go through decode groups, which know one axis."""
        return self.step_rows < self.position_rows


class Declared(Protocol):
    """A file whose shape groups are known."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def groups(self) -> tuple[ShapeGroup, ...]:
        """Its shape groups, by number."""
        ...


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """What one shape group of a layer takes and gives, whatever its order and names.

    Attributes:
        k_cache: Input; also `v_cache`'s shape.
        v_cache: Input.
        indices: Input, positions.
        hidden: Input, embeddings or the previous layer's output.
        mask: Input.
        k_rows: Place of the new K rows among the outputs.
        v_rows: Place of the new V rows.
        output: Place of the hidden state.
    """

    k_cache: TensorInfo
    v_cache: TensorInfo
    indices: TensorInfo
    hidden: TensorInfo
    mask: TensorInfo
    k_rows: int
    v_rows: int
    output: int


def read_stack(layer: Declared, layers: int, post: Declared) -> StackShapes:
    """Tell what a set holds from its first layer and its head.

    Args:
        layer: Layer 0.
        layers: How many there are.
        post: Final norm and LM head.

    Raises:
        ModelFileError: A tensor is missing or does not fit the others.
    """
    tensors = [layer_tensors(layer, g) for g in range(len(layer.groups))]
    prefill: dict[tuple[int, int], PrefillGroup] = {}
    decode: dict[int, DecodeGroup] = {}
    for g, group in enumerate(tensors):
        tokens = group.indices.shape[-1]
        seen = group.mask.shape[-1] - tokens
        if tokens == 1:
            decode.setdefault(seen, DecodeGroup(g, seen))
        else:
            prefill.setdefault((seen, tokens), PrefillGroup(g, tokens, seen))
    if not decode or not prefill:
        raise misfit(
            layer, 'indices', 'groups for chunks and for one token', f'{len(tensors)} of one kind'
        )
    rows = {group.indices.shape[-1] > 1: math.prod(group.indices.shape[:-1]) for group in tensors}
    shapes = StackShapes(
        layers=layers,
        hidden=tensors[0].hidden.shape[-1],
        kv_width=layer.groups[0].outputs[tensors[0].k_rows].shape[-1],
        vocab=_logits(post, tensors[0].hidden.shape[-1]),
        position_rows=rows[True],
        step_rows=rows[False],
        prefill=tuple(prefill[key] for key in sorted(prefill)),
        decode=tuple(decode[key] for key in sorted(decode)),
    )
    if shapes.step_rows not in {1, shapes.position_rows}:
        raise misfit(
            layer, 'indices', f'1 or {shapes.position_rows} rows for a token, as for a chunk',
            f'{shapes.step_rows}',
        )  # fmt: skip
    for g, group in enumerate(tensors):
        _check_group(layer, g, group, shapes)
    if not shapes.decode[0].capacity:
        raise misfit(layer, 'mask', 'room for tokens before the one that is decoded', 'none')
    if shapes.prefill[0].history:
        raise misfit(layer, 'mask', 'a group for the first chunk', f'{shapes.prefill[0]}')
    return shapes


def layer_tensors(layer: Declared, group: int) -> LayerTensors:
    """Find a group's tensors: by `name`, or `name_<group>` as some compilers write them.

    Raises:
        ModelFileError: A tensor is missing.
    """
    inputs, outputs = layer.groups[group].inputs, layer.groups[group].outputs

    def take(name: str) -> TensorInfo:
        return inputs[_place(layer, group, name, inputs)]

    return LayerTensors(
        k_cache=take('K_cache'),
        v_cache=take('V_cache'),
        indices=take('indices'),
        hidden=take('input'),
        mask=take('mask'),
        k_rows=_place(layer, group, 'K_cache_out', outputs),
        v_rows=_place(layer, group, 'V_cache_out', outputs),
        output=_place(layer, group, 'output', outputs),
    )


def check_same(layer: Declared, first: Declared) -> None:
    """Refuse a layer of another build than the first one.

    Raises:
        ModelFileError: It has other groups, tensors or sizes.
    """
    if layer.groups == first.groups:
        return
    if len(layer.groups) != len(first.groups):
        raise misfit(
            layer,
            'shape groups',
            f'{len(first.groups)} as in {first.path.name}',
            f'{len(layer.groups)}: files of different builds in one folder',
        )
    for g, (found, expected) in enumerate(zip(layer.groups, first.groups, strict=True)):
        listed = zip_longest(
            (*found.inputs, *found.outputs), (*expected.inputs, *expected.outputs)
        )
        for here, there in listed:
            if here != there:
                raise misfit(
                    layer,
                    f'{(there or here).name} of group {g}',
                    f'{_shown(there)} as in {first.path.name}',
                    f'{_shown(here)}: files of different builds in one folder',
                )
    raise misfit(layer, 'tensors', f'those of {first.path.name}', 'others')


def logits_place(post: Declared) -> int:
    """Find the scores among the head's outputs: builds with top-k give ids as well."""
    outputs = post.groups[0].outputs
    return next((i for i, tensor in enumerate(outputs) if tensor.name == 'output'), 0)


def _logits(post: Declared, hidden: int) -> int:
    """Check the head; give its vocabulary."""
    group = post.groups[0]
    wide = group.inputs[0]
    if len(group.inputs) != 1 or wide.shape[-1] != hidden or math.prod(wide.shape) != hidden:
        raise misfit(
            post, wide.name, f'one row of width {hidden}, as the layers give it', f'{wide}'
        )
    scores = group.outputs[logits_place(post)]
    if scores.dtype not in {BFLOAT16, 'float32'} or wide.dtype != BFLOAT16:
        raise misfit(
            post, scores.name, 'bfloat16 in, bfloat16 or float32 out', f'{wide}, {scores}'
        )
    return math.prod(scores.shape)


def _check_group(layer: Declared, g: int, found: LayerTensors, shapes: StackShapes) -> None:
    """Refuse a group whose tensors do not fit each other."""
    tokens = found.indices.shape[-1]
    seen = found.mask.shape[-1] - tokens
    outputs = layer.groups[g].outputs
    cache = (1, seen, shapes.kv_width)
    rows = (1, tokens, shapes.kv_width)
    wide = (1, tokens, shapes.hidden)
    mask = (1, tokens, seen + tokens)
    checks = [
        (found.hidden, BFLOAT16, wide),
        (found.mask, BFLOAT16, mask),
        (found.indices, 'uint32', (*found.indices.shape[:-1], tokens)),
        (outputs[found.k_rows], BFLOAT16, rows),
        (outputs[found.v_rows], BFLOAT16, rows),
        (outputs[found.output], BFLOAT16, wide),
    ]
    if seen:  # otherwise dummies, of whatever width
        checks += [(found.k_cache, BFLOAT16, cache), (found.v_cache, BFLOAT16, cache)]
    for tensor, dtype, shape in checks:
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise misfit(
                layer, f'{tensor.name} of group {g}', f'{dtype} {list(shape)}', f'{tensor}'
            )
    wanted = shapes.position_rows if tokens > 1 else shapes.step_rows
    if math.prod(found.indices.shape[:-1]) != wanted:
        raise misfit(layer, f'indices of group {g}', f'{wanted} rows', f'{found.indices}')


def _place(layer: Declared, group: int, name: str, tensors: tuple[TensorInfo, ...]) -> int:
    names = [tensor.name for tensor in tensors]
    for wanted in (name, f'{name}_{group}'):
        if wanted in names:
            return names.index(wanted)
    raise misfit(
        layer, f'group {group}', f'a tensor {name}', f'{", ".join(names)}: no decoder layer'
    )


def _shown(tensor: TensorInfo | None) -> str:
    return f'{tensor.name} {tensor}' if tensor else 'nothing'


def misfit(file: Declared, tensor: str, expected: str, found: str) -> ModelFileError:
    """Say which tensor of which file does not fit."""
    return ModelFileError(f'{file.path}: {tensor}: expected {expected}, found {found}')
