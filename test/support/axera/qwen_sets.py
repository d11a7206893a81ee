"""Qwen2.5-VL as Axera publishes it, tiny: patches of one grid, positions on three axes.

Its float twin in ONNX, which the CPU engine runs, has the same weights.

Source of the layout: AXERA-TECH/Qwen2.5-VL-3B-Instruct (file names; the vendor's run log: chunks
of 128, histories to 512, a cache of 1023, one row of positions in decode groups).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from support.axera.axmodel_file import Axmodel, write_axmodel
from support.axera.layers import LayerSizes
from support.axera.layout import Layout, layer_groups
from support.axera.sets import patch_group, post_group, write_set
from support.axera.weights import Weights, cut_weights
from support.tiny_model.config import NORM_EPS, ROPE_THETA, TinyConfig
from support.tiny_model.qwen2_vl import (
    TinyQwen2Vl,
    make_tiny_qwen2_vl,
    make_weights,
    vision_encoder,
    write_texts,
)

TINY_QWEN2_5_VL: Final = TinyQwen2Vl(
    model_type='qwen2_5_vl',
    language=TinyConfig(
        hidden=64, layers=3, mlp=128, context_tokens=512, mrope=True, keeps_logits=False, seed=5
    ),
)
GRID: Final = (8, 8)
"""Of patches: 112 px, one window, 16 rows."""

LAYOUT: Final = Layout(
    histories=tuple(range(0, 129, 16)),
    capacities=(191,),
    prefix='qwen2_5_vl',
    position_rows=3,
    is_table_raw=True,
)


def qwen_weights(config: TinyQwen2Vl = TINY_QWEN2_5_VL) -> Weights:
    """Draw a tiny random Qwen2.5-VL, cut the way axmodel sets are."""
    named = make_weights(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'vision.onnx'
        vision_encoder(named, config).save(path)
        vision = path.read_bytes()
    language = config.language
    sizes = LayerSizes(language.heads, language.kv_heads, ROPE_THETA, NORM_EPS)
    rows, columns = GRID
    weights = cut_weights(
        named, sizes, vision, tile_px=0, vision_rows=rows * columns // config.merge**2
    )
    sections: NDArray[Any] = np.array(language.mrope_sections)
    layers = tuple({**layer, 'sections': sections} for layer in weights.layers)
    return replace(weights, layers=layers, grid=GRID)


def write_qwen2_5_vl(folder: Path, layout: Layout = LAYOUT) -> Path:
    """Write the set with its texts."""
    write_texts(folder, TINY_QWEN2_5_VL)
    return write_set(folder, qwen_weights(), layout)


def write_float_twin(folder: Path) -> Path:
    """Write the same model in ONNX."""
    return make_tiny_qwen2_vl(folder, TINY_QWEN2_5_VL)


# --- Qwen2.5-VL-3B's sizes, for counting ---------------------------------------------------------

# Source: the vendor's run log of Qwen2.5-VL-3B-Instruct on a card.
PUBLISHED: Final = replace(
    LAYOUT, chunk=128, histories=(0, 128, 256, 384, 512), capacities=(1023,)
)
LAYERS, HIDDEN, KV_WIDTH, VOCAB, PATCHES = 36, 2048, 256, 151936, 1024


def write_qwen2_5_vl_3b(folder: Path) -> Path:
    """Write its shapes without weights: nothing is computed. The table is a file of holes."""
    language = TinyConfig(
        hidden=HIDDEN, layers=LAYERS, heads=16, kv_heads=2, context_tokens=32768, mrope=True
    )
    write_texts(folder, replace(TINY_QWEN2_5_VL, language=language))
    groups = layer_groups(PUBLISHED, HIDDEN, KV_WIDTH)
    for i in range(LAYERS):
        write_axmodel(folder / PUBLISHED.layer_name(i), Axmodel('layer', 'ax650', groups))
    head = post_group(HIDDEN, VOCAB, PUBLISHED)
    write_axmodel(folder / PUBLISHED.post_name, Axmodel('post', 'ax650', (head,)))
    tower = patch_group(PATCHES, HIDDEN, PUBLISHED)
    path = folder / 'vit_axmodel' / 'Qwen2.5-VL-3B-Instruct_vision_nchw448.axmodel'
    write_axmodel(path, Axmodel('vit', 'ax650', (tower,)))
    with (folder / PUBLISHED.table_name).open('wb') as table:
        table.truncate(2 * VOCAB * HIDDEN)
    return folder
