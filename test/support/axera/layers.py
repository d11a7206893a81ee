"""What the chip computes: decoder layer, head and vision tower, from the tensors given alone.

Sums are float32, inputs and outputs bfloat16, as on the chip (w8a16 quantisation aside, which only
a board shows). Nothing is known here but the tensors of the group that runs: what a caller puts in
a wrong cache row, column of the mask or position changes the result. The mask is added, never used
to select, so not-a-number in a hidden row spoils the result as it does on the chip.

Keys are cached after the rotary embedding: a decode group takes the position of its token alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from support.axera.axmodel_file import Axmodel, Group, Tensor

BF16 = np.dtype(ml_dtypes.bfloat16)

Floats: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = 'Mapping[str, NDArray[Any]]'
Compute: TypeAlias = Callable[[int, Sequence[NDArray[Any]]], 'list[NDArray[Any]] | None']
"""(group, its inputs in file order) -> its outputs in file order; None = nothing to compute."""

LINEAR_PARTS = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')
"""Names of a layer's matrices, (out, in): '<part>_weight'; q, k and v have '<part>_bias' too, or
q and k '<part>_norm' (Qwen3)."""


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """What the weights of a decoder layer do not say.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads.
        theta: Base of the rotary embedding.
        epsilon: Of the RMS norms.
    """

    heads: int
    kv_heads: int
    theta: float
    epsilon: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give them as the file's arrays."""
        return {
            'heads': np.array(self.heads),
            'kv_heads': np.array(self.kv_heads),
            'theta': np.array(self.theta),
            'epsilon': np.array(self.epsilon),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> LayerSizes:
        """Read them back."""
        return cls(
            int(arrays['heads']),
            int(arrays['kv_heads']),
            float(arrays['theta']),
            float(arrays['epsilon']),
        )


def open_compute(model: Axmodel) -> Compute:
    """Give the function that runs a model's groups."""
    if not model.arrays:
        return _nothing
    if model.kind == 'vit' and 'deepstack' in model.arrays:
        from support.axera.deep_tower import DeepTower

        return DeepTower(model.arrays, model.groups[0]).run
    if model.kind == 'vit':
        return partial(_run_vision, _VisionTower(model.arrays), model)
    return partial(_run_layer if model.kind == 'layer' else _run_post, model)


def _nothing(group: int, inputs: Sequence[NDArray[Any]]) -> None:
    """Compute nothing: the model has shapes and delays alone."""


def base_name(tensor: Tensor, group: int) -> str:
    """Give a tensor's name without the `_<group>` that some builds append."""
    return tensor.name.removesuffix(f'_{group}') if group else tensor.name


def _by_name(group: Group, number: int, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    named: dict[str, NDArray[Any]] = {}
    for tensor, array in zip(group.inputs, inputs, strict=True):
        assert array.shape == tensor.shape, (tensor, array.shape)
        assert array.dtype == tensor.numpy_dtype, (tensor, array.dtype)
        named[base_name(tensor, number)] = array
    return named


def _in_order(
    group: Group, number: int, results: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    found = []
    for tensor in group.outputs:
        array = results[base_name(tensor, number)].reshape(tensor.shape)
        found.append(array.astype(tensor.numpy_dtype))
    return found


def _run_layer(model: Axmodel, number: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    group = model.groups[number]
    with np.errstate(invalid='ignore', over='ignore'):  # not-a-number comes in and goes out
        results = _layer(model.arrays, _by_name(group, number, inputs))
    return _in_order(group, number, results)


def _run_post(model: Axmodel, number: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    group = model.groups[number]
    hidden = _by_name(group, number, inputs)['input'].astype(np.float32, copy=False)[0]
    with np.errstate(invalid='ignore', over='ignore'):
        normed = rms_norm(hidden, model.arrays['norm'], float(model.arrays['epsilon']))
        logits = normed @ model.arrays['head'].astype(np.float32, copy=False).T
    return _in_order(group, number, {'output': logits})


def _layer(arrays: Arrays, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run one decoder layer; every row of `input`, padding too."""
    sizes = LayerSizes.of(arrays)
    hidden = inputs['input'].astype(np.float32, copy=False)[0]
    mask = inputs['mask'].astype(np.float32, copy=False)[0]
    turn = Turn.of(arrays, inputs['indices'])
    history = mask.shape[-1] - len(hidden)
    normed = rms_norm(hidden, arrays['norm_1'], sizes.epsilon)
    query = rotate(_head_normed(arrays, 'q', normed), turn, sizes.heads, sizes.theta)
    key = rotate(_head_normed(arrays, 'k', normed), turn, sizes.kv_heads, sizes.theta)
    # Rounded before they are attended to: a token sees the same rows in its own chunk as later.
    new_key, new_value = key.astype(BF16), _linear(arrays, 'v', normed).astype(BF16)
    keys = _behind(inputs['K_cache'], history, new_key)
    values = _behind(inputs['V_cache'], history, new_value)
    mixed = attend(query, keys, values, mask, sizes)
    hidden = hidden + _linear(arrays, 'o', mixed)
    normed = rms_norm(hidden, arrays['norm_2'], sizes.epsilon)
    gate = _linear(arrays, 'gate', normed)
    gated = gate / (1 + np.exp(-gate)) * _linear(arrays, 'up', normed)
    hidden = hidden + _linear(arrays, 'down', gated)
    return {'K_cache_out': new_key, 'V_cache_out': new_value, 'output': hidden}


def _behind(cache: NDArray[Any], history: int, new: NDArray[Any]) -> Floats:
    """Join cache rows and new rows: (history + tokens, kv_width).

    Without a history the cache is a dummy, [1, 1, hidden]. What the chip does with it is not
    known; not-a-number there means that nobody wrote it, and shows.
    """
    rows = new.astype(np.float32, copy=False)
    if history:
        assert cache.shape[1] == history, (cache.shape, history)
        return np.concatenate([cache[0].astype(np.float32, copy=False), rows])
    dummy: np.float32 = 0 * cache.astype(np.float32, copy=False).sum()
    return rows + dummy


def _linear(arrays: Arrays, part: str, value: Floats) -> Floats:
    product: Floats = value @ arrays[f'{part}_weight'].astype(np.float32, copy=False).T
    bias = f'{part}_bias'
    return product + arrays[bias].astype(np.float32, copy=False) if bias in arrays else product


def _head_normed(arrays: Arrays, part: str, value: Floats) -> Floats:
    """Project; norm each head where the model does (Qwen3)."""
    projected, scale = _linear(arrays, part, value), arrays.get(f'{part}_norm')
    if scale is None:
        return projected
    heads = projected.reshape(len(value), -1, len(scale))
    return rms_norm(heads, scale, float(arrays['epsilon'])).reshape(projected.shape)


def rms_norm(value: Floats, scale: NDArray[Any], epsilon: float) -> Floats:
    """Norm the rows of (tokens, hidden)."""
    mean = np.square(value).mean(axis=-1, keepdims=True, dtype=np.float32)
    normed: Floats = (
        value / np.sqrt(mean + np.float32(epsilon)) * scale.astype(np.float32, copy=False)
    )
    return normed


@dataclass(frozen=True, slots=True)
class Turn:
    """Where tokens stand.

    Attributes:
        positions: (rows, tokens): one row, or three where the model takes M-RoPE.
        axes: Which row each of a head's speeds turns by; () = there is one row.
    """

    positions: NDArray[np.integer[Any]]
    axes: tuple[int, ...] = ()

    @classmethod
    def of(cls, arrays: Arrays, positions: NDArray[np.integer[Any]]) -> Turn:
        """Read a layer's axes; a group of one row has a token at one place on all of them.

        They are given one by one ('axes'), or as so many of each side by side ('sections').
        """
        axes, sections = arrays.get('axes'), arrays.get('sections')
        if axes is None and sections is not None:
            axes = np.repeat(np.arange(len(sections)), sections)
        assert len(positions) == 1 or axes is not None, positions.shape
        if axes is None or len(positions) == 1:
            return cls(positions)
        return cls(positions, tuple(axes.tolist()))


def rotate(value: Floats, turn: Turn, heads: int, theta: float) -> Floats:
    """Rotate (tokens, heads * head_dim) by position, as Qwen2: a head's halves form the pairs."""
    cut = value.reshape(len(value), heads, -1)
    half = cut.shape[-1] // 2
    speeds = theta ** (-np.arange(half, dtype=np.float64) / half)
    rows = np.array(turn.axes or (0,) * half)
    angles = turn.positions.astype(np.float64)[rows].T[:, None] * speeds
    cosine, sine = (
        np.cos(angles).astype(np.float32, copy=False),
        np.sin(angles).astype(np.float32, copy=False),
    )
    low, high = cut[..., :half], cut[..., half:]
    turned = np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)
    return turned.reshape(value.shape)


def attend(query: Floats, keys: Floats, values: Floats, mask: Floats, sizes: LayerSizes) -> Floats:
    """Attend with an added mask, heads grouped: (tokens, heads * head_dim)."""
    tokens, total = mask.shape
    share = sizes.heads // sizes.kv_heads
    # (kv_heads, share, tokens, head_dim) against (kv_heads, 1, total, head_dim)
    apart = query.reshape(tokens, sizes.kv_heads, share, -1).transpose(1, 2, 0, 3)
    keys = keys.reshape(total, sizes.kv_heads, 1, -1).transpose(1, 2, 0, 3)
    values = values.reshape(total, sizes.kv_heads, 1, -1).transpose(1, 2, 0, 3)
    scores = apart @ keys.swapaxes(-1, -2) * np.float32(apart.shape[-1] ** -0.5) + mask
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: Floats = (weights @ values).transpose(2, 0, 1, 3).reshape(tokens, -1)
    return mixed


class _VisionTower:
    """An ONNX graph with one output (1, rows, hidden), float32.

    Its input is (1, 3, px, px), or the patches of one grid: (n, values) and the grid.
    """

    def __init__(self, arrays: Arrays) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            arrays['onnx'].tobytes(), options, providers=['CPUExecutionProvider']
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._grid = arrays.get('grid')
        self._mean = arrays.get('mean')
        self._deviation = arrays.get('deviation')

    def run(self, pixels: NDArray[Any]) -> Floats:
        """Encode float32 (1, 3, px, px), or RGB uint8 with colours last, normalised here."""
        if self._grid is not None:
            return self._see_patches(pixels)
        if self._mean is not None and self._deviation is not None:
            scaled = (pixels.astype(np.float32, copy=False) / 255 - self._mean) / self._deviation
            pixels = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)
        (features,) = self._session.run([self._output], {self._input: pixels})
        found: Floats = features
        return found

    def _see_patches(self, pixels: NDArray[Any]) -> Floats:
        """Encode uint8 (1, n, values, 3): frame, row and column in one axis, then colours."""
        assert self._grid is not None
        assert self._mean is not None
        assert self._deviation is not None
        scaled = (pixels[0].astype(np.float32) / 255 - self._mean) / self._deviation
        patches = np.ascontiguousarray(scaled.transpose(0, 2, 1), np.float32)
        names = [tensor.name for tensor in self._session.get_inputs()]
        feeds = dict(zip(names, (patches.reshape(len(patches), -1), self._grid), strict=True))
        (features,) = self._session.run([self._output], feeds)
        found: Floats = features
        return found


def _run_vision(
    tower: _VisionTower, model: Axmodel, number: int, inputs: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    group = model.groups[number]
    (pixels,) = _by_name(group, number, inputs).values()
    (tensor,) = group.outputs
    return [tower.run(pixels).reshape(tensor.shape).astype(tensor.numpy_dtype)]
