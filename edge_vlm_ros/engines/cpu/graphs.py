"""The three graphs of the split ONNX layout: names, shapes, and how the KV cache is wired.

    vision_encoder        pixel_values (N, 3, px, px) -> image_features (N, rows, hidden), or
                          pixel_values (1, N, 3, px, px), pixel_attention_mask (1, N, px, px)
                          -> image_features (N that are not all zero, rows, hidden);
                          of patches instead of tiles: see `towers`
    embed_tokens          input_ids (1, S) -> inputs_embeds (1, S, hidden)
    decoder_model_merged  inputs_embeds (1, S, hidden), attention_mask (1, past + S),
                          position_ids (1, S) or (3, 1, S), past_key_values.{i}.key and .value
                          (1, kv_heads, past, head_dim) [, num_logits_to_keep ()]
                          -> logits (1, S or kept, vocabulary), present.{i}.key and .value

Source: the layout that Hugging Face Optimum and the onnx-community repositories use for
vision-language models. Sizes and types are read from the files; what does not fit is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelConfig, VisionInputs
from edge_vlm_ros.engines.checks import check_tiles
from edge_vlm_ros.engines.cpu.expect import (
    declared_input,
    declared_output,
    known_dtype,
    misfit,
    refuse_other_inputs,
)
from edge_vlm_ros.engines.cpu.pace import Pace, fastest_s
from edge_vlm_ros.engines.cpu.runtime import Graph, TensorInfo

_PAST = re.compile(r'past_key_values\.([0-9]{1,4})\.(key|value)')
_LARGEST_TILE_PX = 4096
_MASK = 'pixel_attention_mask'
_MROPE_RANK = 3


@dataclass(frozen=True, slots=True)
class DeclaredSizes:
    """What the graphs do not say, from config.json.

    Attributes:
        path: The file.
        context_tokens: `max_position_embeddings` of the language model.
        hidden_size: Of the language model; None when not given.
        layers: Of the language model; None when not given.
        tile_px: Side of the vision tower's square; None when not given.
        rows_per_tile: Feature rows of one tile; None when not given.
    """

    path: Path
    context_tokens: int
    hidden_size: int | None
    layers: int | None
    tile_px: int | None
    rows_per_tile: int | None

    @classmethod
    def of(cls, config: ModelConfig) -> DeclaredSizes:
        """Read them.

        Raises:
            ModelFileError: config.json is missing or damaged, or lacks the context length.
        """
        return cls(
            path=config.model.path,
            context_tokens=config.language.count('max_position_embeddings'),
            hidden_size=config.language.find_count('hidden_size'),
            layers=config.language.find_count('num_hidden_layers'),
            tile_px=config.vision.find_count('image_size'),
            rows_per_tile=_rows_per_tile(config),
        )


def _rows_per_tile(config: ModelConfig) -> int | None:
    """Count as InternVL's `num_image_token` does: patches a side, shrunk, squared."""
    given = config.model.find_count('image_seq_length')
    size, patch = config.vision.find_count('image_size'), config.vision.find_count('patch_size')
    ratio = config.model.find_fraction('downsample_ratio')
    scale = config.model.find_count('scale_factor')  # Idefics3's word for it, upside down.
    ratio = 1 / scale if ratio is None and scale is not None else ratio
    if given is not None or size is None or patch is None or ratio is None:
        return given
    return round((size // patch) ** 2 * ratio**2)


class VisionEncoder:
    """pixel_values -> image_features, one tile at a time so that memory stays bounded."""

    wants_mrope = False

    def __init__(self, graph: Graph, config: DeclaredSizes) -> None:
        self._graph = graph
        self._has_mask = _MASK in graph.inputs
        self._pixels = declared_input(graph, 'pixel_values', rank=5 if self._has_mask else 4)
        self._features = declared_output(graph, 'image_features')
        refuse_other_inputs(graph, {'pixel_values', _MASK})
        self.tile_px = self._tile_px(config)
        self.hidden_size, self.rows_per_tile = self._probe()
        if config.rows_per_tile not in {None, self.rows_per_tile}:
            raise misfit(
                graph,
                'image_features',
                f'{config.rows_per_tile} rows a tile ({config.path})',
                f'{self.rows_per_tile}',
            )

    @property
    def timed_rows(self) -> int:
        """How long a prompt is to be timed: a tile's."""
        return self.rows_per_tile

    def pace(self, token_s: float) -> Pace:
        """Say what an image costs here, given the seconds of a token of a prompt."""
        return Pace(self.timed_s, token_s, self.rows_per_tile)

    def encode(self, inputs: VisionInputs) -> NDArray[Any]:
        """Encode (tiles, 3, px, px) into (tiles * rows, hidden); see `_run_tile`.

        Raises:
            EdgeVlmError: The pixels have another shape.
        """
        check_tiles(inputs, self.tile_px)
        pixels = inputs.pixels
        return np.concatenate([self._run_tile(pixels[i : i + 1]) for i in range(len(pixels))])

    def _run_tile(self, tile: NDArray[np.float32]) -> NDArray[Any]:
        """Encode one tile; one of zeros, padding to graphs that take a mask, gives no rows.

        Published graphs drop it and then fail in a Reshape. No frame becomes one where the mean is
        0.5: that is no 8-bit value.
        """
        if self._has_mask and not tile.any():
            return np.zeros((0, self.hidden_size), np.float32)
        feeds = {'pixel_values': tile.astype(self._pixels.dtype, copy=False)}
        if self._has_mask:
            mask = declared_input(self._graph, _MASK, rank=4)
            feeds = {'pixel_values': feeds['pixel_values'][None]}
            feeds[_MASK] = np.ones((1, 1, *tile.shape[2:]), mask.dtype)
        (features,) = self._graph.run(['image_features'], feeds)
        return features.reshape(-1, features.shape[-1])

    def _tile_px(self, config: DeclaredSizes) -> int:
        height, width = self._pixels.shape[-2:]
        declared = height or width or config.tile_px
        if declared is None:
            raise misfit(
                self._graph, 'pixel_values', 'a fixed size, here or in config.json', 'none'
            )
        if not 0 < declared <= _LARGEST_TILE_PX:
            raise misfit(
                self._graph, 'pixel_values', f'1 to {_LARGEST_TILE_PX} px a side', f'{declared}'
            )
        for side in (height, width, config.tile_px):
            if side not in {None, declared}:
                raise misfit(
                    self._graph, 'pixel_values', f'{declared} px ({config.path})', f'{side}'
                )
        return declared

    def _probe(self) -> tuple[int, int]:
        # Not of zeros: graphs that take a mask drop images of zeros, which are padding to them.
        tile = np.ones((1, 3, self.tile_px, self.tile_px), np.float32)
        rows = self._run_tile(tile)
        self.timed_s = fastest_s(lambda: self._run_tile(tile))
        return rows.shape[1], rows.shape[0]


class TokenEmbedder:
    """input_ids -> inputs_embeds."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        ids = declared_input(graph, 'input_ids', rank=2)
        declared_output(graph, 'inputs_embeds')
        refuse_other_inputs(graph, {'input_ids'})
        self._id_dtype = ids.dtype
        probed = self.run(np.zeros(1, np.int64))
        self.dtype, self.hidden_size = probed.dtype, int(probed.shape[-1])

    def run(self, tokens: NDArray[np.int64]) -> NDArray[Any]:
        """Look up (S,) ids: (1, S, hidden)."""
        ids = tokens[None].astype(self._id_dtype, copy=False)
        (embeds,) = self._graph.run(['inputs_embeds'], {'input_ids': ids})
        return embeds


@dataclass(frozen=True, slots=True)
class KvTensor:
    """One of the cache's tensors: the key or the value of one layer."""

    past: str
    present: str
    heads: int
    head_dim: int
    dtype: np.dtype[Any]

    def empty(self) -> NDArray[Any]:
        """Make the cache of no tokens."""
        return np.zeros((1, self.heads, 0, self.head_dim), self.dtype)


class Decoder:
    """inputs_embeds and the past -> logits of the last token and the present."""

    def __init__(self, graph: Graph, config: DeclaredSizes) -> None:
        self._graph = graph
        embeds = declared_input(graph, 'inputs_embeds', rank=3)
        self.hidden_size = self._hidden_size(embeds, config)
        self.dtype = known_dtype(graph, embeds)
        self.kv = _kv_tensors(graph)
        layers = len(self.kv) // 2
        if config.layers not in {None, layers}:
            raise misfit(
                graph, 'past_key_values', f'{config.layers} layers ({config.path})', f'{layers}'
            )
        self._mask_dtype = known_dtype(graph, declared_input(graph, 'attention_mask', rank=2))
        self._positions = graph.inputs.get('position_ids')
        self._keep = graph.inputs.get('num_logits_to_keep')
        declared_output(graph, 'logits')
        known = {'inputs_embeds', 'attention_mask', 'position_ids', 'num_logits_to_keep'}
        refuse_other_inputs(graph, known | {tensor.past for tensor in self.kv})
        self._wanted = ['logits', *(tensor.present for tensor in self.kv)]
        self.vocab_size = self._probe()

    @property
    def takes_mrope(self) -> bool:
        """Whether positions have three rows (time, height, width)."""
        return self._positions is not None and len(self._positions.shape) == _MROPE_RANK

    def run(
        self,
        embeds: NDArray[Any],
        positions: NDArray[np.int64],
        past: list[NDArray[Any]],
        past_tokens: int,
    ) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        """Append S tokens.

        Args:
            embeds: (1, S, hidden), of `dtype`.
            positions: (S,), or (3, S) where `takes_mrope`.
            past: As `kv` lists them, each holding `past_tokens`.
            past_tokens: How many the cache holds.

        Returns:
            Logits of the last token, float32 (vocabulary,), and the present, as `kv` lists it.
        """
        tokens = positions.shape[-1]
        feeds = {
            'inputs_embeds': embeds,
            'attention_mask': np.ones((1, past_tokens + tokens), self._mask_dtype),
        }
        if self._positions is not None:
            feeds['position_ids'] = self._shape_positions(positions)
        if self._keep is not None:
            one = np.ones((1,) * len(self._keep.shape), known_dtype(self._graph, self._keep))
            feeds['num_logits_to_keep'] = one
        feeds.update((tensor.past, value) for tensor, value in zip(self.kv, past, strict=True))
        logits, *present = self._graph.run(self._wanted, feeds)
        return logits[0, -1].astype(np.float32, copy=False), present

    def token_s(self, tokens: int) -> float:
        """Measure a prompt of so many tokens; return the seconds of one."""
        embeds = np.zeros((1, tokens, self.hidden_size), self.dtype)
        past = [tensor.empty() for tensor in self.kv]
        return fastest_s(lambda: self.run(embeds, np.arange(tokens), past, 0)) / tokens

    def _shape_positions(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        info = self._positions
        assert info is not None
        if self.takes_mrope:
            rows = np.broadcast_to(positions, (_MROPE_RANK, positions.shape[-1]))
            shaped = rows[:, None]
        else:
            shaped = positions[None]
        return shaped.astype(known_dtype(self._graph, info), copy=False)

    def _hidden_size(self, embeds: TensorInfo, config: DeclaredSizes) -> int:
        found = embeds.shape[2] or config.hidden_size
        if found is None:
            raise misfit(self._graph, embeds.name, 'a fixed width, here or in config.json', 'none')
        if config.hidden_size not in {None, found}:
            expected = f'width {config.hidden_size} ({config.path})'
            raise misfit(self._graph, embeds.name, expected, f'{found}')
        return found

    def _probe(self) -> int:
        """Run one token, so that a graph that cannot run is refused now and not at a question."""
        embeds = np.zeros((1, 1, self.hidden_size), self.dtype)
        logits, present = self.run(
            embeds, np.zeros(1, np.int64), [tensor.empty() for tensor in self.kv], 0
        )
        for tensor, value in zip(self.kv, present, strict=True):
            expected = [1, tensor.heads, 1, tensor.head_dim]
            if list(value.shape) != expected:
                raise misfit(self._graph, tensor.present, f'{expected}', f'{list(value.shape)}')
        return len(logits)


def _kv_tensors(graph: Graph) -> list[KvTensor]:
    """Pair the cache's inputs with its outputs, layer by layer, key before value."""
    numbers = {int(match[1]) for match in map(_PAST.fullmatch, graph.inputs) if match}
    if not numbers:
        raise misfit(
            graph, 'past_key_values.0.key', 'an input', 'none (no KV cache in this graph)'
        )
    names = ((layer, kind) for layer in range(max(numbers) + 1) for kind in ('key', 'value'))
    return [_kv_tensor(graph, layer, kind) for layer, kind in names]


def _kv_tensor(graph: Graph, layer: int, kind: str) -> KvTensor:
    past = declared_input(graph, f'past_key_values.{layer}.{kind}', rank=4)
    present = declared_output(graph, f'present.{layer}.{kind}')
    _, heads, _, head_dim = past.shape
    if heads is None or head_dim is None:
        raise misfit(graph, past.name, 'fixed heads and head_dim', f'{past.shape}')
    dtype = known_dtype(graph, past)
    if present.dtype != dtype:
        raise misfit(graph, present.name, past.type_name, present.type_name)
    return KvTensor(past.name, present.name, heads, head_dim, dtype)
