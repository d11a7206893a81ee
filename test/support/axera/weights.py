"""Weights of made-up and shipped models, as the arrays that axmodel files of ours hold."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from support.axera.layers import LINEAR_PARTS, LayerSizes
from support.internvl_files import SPECIAL_TOKENS
from support.onnx_weights import graph_files, read_weights
from support.tiny_model.config import NORM_EPS, ROPE_THETA, TinyConfig
from support.tiny_model.graphs import vision_encoder
from support.tiny_model.weights import make_weights

DEMO_MODEL: Final = Path(__file__).parents[3] / 'edge_vlm_ros' / 'demo' / 'model'

END_TOKEN: Final = 0x100 + SPECIAL_TOKENS.index('<|im_end|>')
"""Of the tiny models' tokenizer."""

_PLACES: Final = {
    **dict.fromkeys('qkvo', 'self_attn.{}_proj'),
    **dict.fromkeys(('gate', 'up', 'down'), 'mlp.{}_proj'),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """One model, cut the way axmodel sets are.

    Attributes:
        sizes: Of a decoder layer.
        layers: Arrays of each decoder layer (see `layers`).
        norm: Scale of the last RMS norm, (hidden,).
        head: (vocabulary, hidden).
        table: Embeddings, float32, (vocabulary, hidden).
        vision: An ONNX graph, (1, 3, px, px) -> (1, rows, hidden), float32.
        tile_px: Its square.
        vision_rows: Rows of one tile, or of the one grid of patches.
        grid: Rows and columns of patches; () = the tower takes tiles.
    """

    sizes: LayerSizes
    layers: tuple[Mapping[str, NDArray[Any]], ...] = field(repr=False)
    norm: NDArray[Any] = field(repr=False)
    head: NDArray[Any] = field(repr=False)
    table: NDArray[np.float32] = field(repr=False)
    vision: bytes = field(repr=False)
    tile_px: int
    vision_rows: int
    grid: tuple[int, ...] = ()

    @property
    def hidden(self) -> int:
        """Width of the hidden state."""
        return int(self.table.shape[1])

    @property
    def kv_width(self) -> int:
        """Width of one cache row."""
        return int(self.layers[0]['k_weight'].shape[0])


TINY: Final = TinyConfig(hidden=64, layers=3, heads=4, kv_heads=2, mlp=128, seed=5)


def tiny_weights(config: TinyConfig = TINY) -> Weights:
    """Draw a tiny random Qwen2 with a vision tower."""
    named = make_weights(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'vision.onnx'
        vision_encoder(named, config).save(path)
        vision = path.read_bytes()
    return cut_weights(
        named,
        LayerSizes(config.heads, config.kv_heads, ROPE_THETA, NORM_EPS),
        vision,
        tile_px=config.image_px,
        vision_rows=config.rows_per_tile,
    )


def qwen3_weights() -> Weights:
    """Draw a tiny random Qwen3: the Qwen2 above with norms of queries and keys for its biases."""
    drawn = tiny_weights()
    random = np.random.default_rng(3)
    width = len(drawn.layers[0]['k_weight']) // drawn.sizes.kv_heads
    layers = tuple(
        {name: array for name, array in layer.items() if not name.endswith('_bias')}
        | {f'{part}_norm': random.uniform(0.5, 3, width).astype(np.float32) for part in 'qk'}
        for layer in drawn.layers
    )
    return replace(drawn, layers=layers)


def reciting_weights(text: str, opener: int = ord('\n')) -> Weights:
    """Make a tiny model that says one text, whatever is asked: each token leads to the next.

    Its layers attend and compute, but add nothing; not-a-number still comes through them.

    Args:
        text: Its bytes in UTF-8 all differ, and from `opener`; '' = the answer ends at once.
        opener: The last token of every prompt.
    """
    drawn = tiny_weights()
    chain = [opener, *text.encode(), END_TOKEN]
    assert len(set(chain)) == len(chain), chain
    head = np.zeros_like(drawn.head)
    for token, following in pairwise(chain):
        row = drawn.table[token]
        head[following] = 8 * row / np.linalg.norm(row)
    layers = tuple(
        {**layer, **{name: np.zeros_like(layer[name]) for name in ('o_weight', 'down_weight')}}
        for layer in drawn.layers
    )
    return replace(drawn, layers=layers, head=head, norm=np.ones_like(drawn.norm))


def demo_weights(folder: Path = DEMO_MODEL) -> Weights:
    """Read the shipped demo model from its ONNX graphs."""
    vision, *language = graph_files(folder)
    named = {name: array.astype(np.float32) for name, array in read_weights(language).items()}
    pixels = onnx.load(vision).graph
    sides = pixels.input[0].type.tensor_type.shape.dim
    rows = pixels.output[0].type.tensor_type.shape.dim
    # From config.json; the graph only holds the cosines' speeds.
    return cut_weights(
        named,
        LayerSizes(heads=6, kv_heads=3, theta=1e4, epsilon=1e-6),
        vision.read_bytes(),
        tile_px=sides[-1].dim_value,
        vision_rows=rows[-2].dim_value,
    )


def cut_weights(
    named: Mapping[str, NDArray[Any]],
    sizes: LayerSizes,
    vision: bytes,
    *,
    tile_px: int,
    vision_rows: int,
) -> Weights:
    """Cut named weights into the files of a set.

    Args:
        named: The tower's aside, by the names of the tiny models.
        sizes: Of a decoder layer.
        vision: An ONNX graph.
        tile_px: Its square; 0 = it takes patches.
        vision_rows: Rows of one tile.
    """
    model = 'language_model.model'
    count = sum(name.endswith('.input_layernorm.weight') for name in named)
    table = named[f'{model}.embed_tokens.weight'].astype(np.float32)
    return Weights(
        sizes=sizes,
        layers=tuple(_layer(named, f'{model}.layers.{i}', sizes) for i in range(count)),
        norm=named[f'{model}.norm.weight'],
        head=named.get('language_model.lm_head.weight', table),
        table=table,
        vision=vision,
        tile_px=tile_px,
        vision_rows=vision_rows,
    )


def _layer(
    named: Mapping[str, NDArray[Any]], stem: str, sizes: LayerSizes
) -> dict[str, NDArray[Any]]:
    arrays = sizes.arrays()
    arrays['norm_1'] = named[f'{stem}.input_layernorm.weight']
    arrays['norm_2'] = named[f'{stem}.post_attention_layernorm.weight']
    for part in LINEAR_PARTS:
        for kind in ('weight', 'bias'):
            name = f'{stem}.{_PLACES[part].format(part)}.{kind}'
            if name in named:
                arrays[f'{part}_{kind}'] = named[name]
    return arrays
