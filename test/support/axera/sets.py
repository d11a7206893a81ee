"""Write axmodel sets into folders: `python -m support.axera.sets KIND --to DIR`.

A set lies as the published ones do: one file for each decoder layer, the head, the embedding
table, the vision tower in vit_axmodel/, tokenizer and config.json beside them. Needs `onnx` (test
extra), not torch.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelFiles
from support.axera.axmodel_file import Axmodel, Group, Tensor, write_axmodel
from support.axera.layout import Delays, Layout, layer_groups
from support.axera.weights import (
    DEMO_MODEL,
    TINY,
    Weights,
    demo_weights,
    qwen3_weights,
    reciting_weights,
    tiny_weights,
)
from support.tiny_model.config import TinyConfig
from support.tiny_model.make import write_texts

# --- the builds that were seen, scaled down to chunks of 16 ------------------------------------

NINE: Final = Layout()
SEVENTEEN: Final = Layout(histories=tuple(range(0, 257, 16)))
FIXED: Final = Layout(chunk=40, histories=(0,), capacities=(127,))
IRREGULAR: Final = Layout(histories=(0, 64, 96, 192))
SEVERAL_DECODE: Final = Layout(histories=(0, 64, 128, 192, 256), capacities=(79, 159, 319))
SUFFIXED: Final = replace(NINE, is_suffixed=True)
SHUFFLED: Final = replace(NINE, is_shuffled=True)
NHWC: Final = replace(NINE, is_vision_nhwc=True, is_table_raw=True)
AX630C: Final = Layout(histories=(0, 16, 32, 48), capacities=(79,), chip='ax630c')
DEMO: Final = Layout(chunk=32, histories=tuple(range(0, 353, 32)), capacities=(511,))

TINY_LAYOUTS: Final = {
    'tiny': NINE,
    'tiny-17': SEVENTEEN,
    'tiny-fixed': FIXED,
    'tiny-irregular': IRREGULAR,
    'tiny-decode-groups': SEVERAL_DECODE,
    'tiny-suffixed': SUFFIXED,
    'tiny-shuffled': SHUFFLED,
    'tiny-nhwc': NHWC,
    'tiny-ax630c': AX630C,
}
"""Sets that answer alike but for their limits."""

# ImageNet's, which preprocessor_config.json says too.
MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION: Final = np.array([0.229, 0.224, 0.225], np.float32)
# CLIP's, of Qwen2-VL and Qwen2.5-VL.
CLIP_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_DEVIATION: Final = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def write_set(folder: Path, weights: Weights, layout: Layout) -> Path:
    """Write layers, head, table and vision tower of one build; return the folder."""
    write_layers(folder, weights, layout)
    vision = _vision(weights, layout)
    write_axmodel(folder / layout.vision_name, vision)
    return folder


def write_layers(folder: Path, weights: Weights, layout: Layout) -> None:
    """Write all of one build but the vision tower."""
    groups = layer_groups(layout, weights.hidden, weights.kv_width)
    for i, arrays in enumerate(weights.layers):
        model = Axmodel('layer', layout.chip, groups, arrays)
        write_axmodel(folder / layout.layer_name(i), model)
    write_axmodel(folder / layout.post_name, _post(weights, layout))
    table = folder / layout.table_name
    if layout.is_table_raw:
        weights.table.astype(ml_dtypes.bfloat16).tofile(table)
    else:
        np.save(table, weights.table)


def _post(weights: Weights, layout: Layout) -> Axmodel:
    group = post_group(weights.hidden, len(weights.head), layout)
    epsilon = np.array(weights.sizes.epsilon)
    arrays = {'norm': weights.norm, 'head': weights.head, 'epsilon': epsilon}
    return Axmodel('post', layout.chip, (group,), arrays)


def post_group(hidden: int, vocab: int, layout: Layout) -> Group:
    """Make the shapes of a head."""
    return Group(
        (Tensor('input', 'bf16', (1, 1, hidden)),),
        (Tensor('output', 'bf16', (1, 1, vocab)),),
        layout.delays.post_us,
    )


def _vision(weights: Weights, layout: Layout) -> Axmodel:
    if weights.grid:
        return _patch_tower(weights, layout)
    group = _vision_group(weights.tile_px, weights.vision_rows, weights.hidden, layout)
    arrays: dict[str, NDArray[Any]] = {'onnx': np.frombuffer(weights.vision, np.uint8)}
    if layout.is_vision_nhwc:
        arrays |= {'mean': MEAN, 'deviation': DEVIATION}
    return Axmodel('vit', layout.chip, (group,), arrays)


def patch_group(patches: int, hidden: int, layout: Layout) -> Group:
    """Make the shapes of a tower for patches, bytes with colours last.

    Source: the vendor's run log of Qwen2.5-VL-3B-Instruct (names and shapes of both tensors).
    """
    return Group(
        (Tensor('hidden_states', 'u8', (1, patches, 2 * 14 * 14, 3)),),
        (Tensor('hidden_states_out', 'f32', (patches // 4, hidden)),),
        layout.delays.vision_us,
    )


def _patch_tower(weights: Weights, layout: Layout) -> Axmodel:
    """Make a tower for the patches of one grid: Qwen2.5-VL's."""
    rows, columns = weights.grid
    group = patch_group(rows * columns, weights.hidden, layout)
    arrays: dict[str, NDArray[Any]] = {
        'onnx': np.frombuffer(weights.vision, np.uint8),
        'grid': np.array([[1, rows, columns]], np.int64),
        'mean': CLIP_MEAN,
        'deviation': CLIP_DEVIATION,
    }
    return Axmodel('vit', layout.chip, (group,), arrays)


def _vision_group(side: int, rows: int, hidden: int, layout: Layout) -> Group:
    image = Tensor('image', 'f32', (1, 3, side, side))
    if layout.is_vision_nhwc:
        image = Tensor('image', 'u8', (1, side, side, 3))
    features = Tensor('output', 'f32', (1, rows, hidden))
    return Group((image,), (features,), layout.delays.vision_us)


def write_tiny(folder: Path, layout: Layout = NINE, config: TinyConfig = TINY) -> Path:
    """Write the tiny random model in one build, with config and a byte-level tokenizer."""
    write_texts(folder, config)
    return write_set(folder, tiny_weights(config), layout)


QWEN3: Final = replace(
    NINE,
    prefix='qwen3',
    is_table_raw=True,
    vision_name='../vit-models/internvl_vit_model_1x3x56x56.axmodel',
)


def write_internvl35(folder: Path) -> Path:
    """Write a tiny InternVL3.5 as its repository lies on a board; return the repository.

    Source: AXERA-TECH/InternVL3_5-2B.axera, README (the list of folders).
    """
    texts = folder / 'InternVL3_5-2B'
    write_texts(texts, TINY)
    config = json.loads((texts / 'config.json').read_text())
    config['template'] = 'internvl2_5'
    config['llm_config'] |= {'architectures': ['Qwen3ForCausalLM'], 'model_type': 'qwen3'}
    (texts / 'config.json').write_text(json.dumps(config))
    (folder / 'vit-models').mkdir()
    write_set(folder / 'InternVL3_5-2B_axmodel', qwen3_weights(), QWEN3)
    return folder


def write_demo(folder: Path, layout: Layout = DEMO) -> Path:
    """Write the shipped demo model; its cache holds eight frames, a question and an answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in DEMO_MODEL.glob('*.json'):
        shutil.copyfile(path, folder / path.name)
    return write_set(folder, demo_weights(), layout)


RECITED: Final = '\u6f22\U0001f916\u5b57\u00e9'
"""Of two, three and four bytes a character, one token a byte."""


def write_reciting(folder: Path, text: str = RECITED) -> Path:
    """Write a tiny set that gives one answer whatever is asked; '' = none at all."""
    write_texts(folder, TINY)
    return write_set(folder, reciting_weights(text), NINE)


def write_silent(folder: Path) -> Path:
    """Write a tiny set whose first token is the stop token."""
    return write_reciting(folder, '')


# --- sets with a fault -------------------------------------------------------------------------


def write_missing_layer(folder: Path) -> Path:
    """Write a tiny set without its layer 1."""
    (write_tiny(folder) / NINE.layer_name(1)).unlink()
    return folder


def write_mixed_builds(folder: Path) -> Path:
    """Write a tiny set whose layer 1 comes from another build, under the same name."""
    write_tiny(folder)
    other = write_tiny(folder / 'other', SEVENTEEN)
    shutil.move(other / SEVENTEEN.layer_name(1), folder / NINE.layer_name(1))
    shutil.rmtree(other)
    return folder


def write_wrong_vision(folder: Path) -> Path:
    """Write a tiny set with the vision tower of a wider model."""
    write_tiny(folder)
    wider = tiny_weights(replace(TINY, hidden=96))
    write_axmodel(folder / 'vit_axmodel' / 'internvl_vit.axmodel', _vision(wider, NINE))
    return folder


# --- InternVL3-2B's sizes, for timing ----------------------------------------------------------

# Milliseconds of one layer by history / 128. Source: the table that the vendor publishes with the
# InternVL3-2B axmodels (AX650N, w8a16, three NPU cores), measured on a board.
_PREFILL_MS: Final = (
    7.483, 10.089, 12.815, 15.235, 18.527, 20.751, 23.520, 25.932, 29.124,
    31.727, 34.708, 36.982, 39.950, 42.418, 45.933, 48.577, 52.405,
)  # fmt: skip
_INTERNVL3_2B: Final = Layout(
    chunk=128,
    histories=tuple(range(0, 2049, 128)),
    capacities=(2559,),
    delays=Delays(
        prefill_us={128 * i: round(1000 * ms) for i, ms in enumerate(_PREFILL_MS)},
        decode_us={2559: 2664},
        post_us=11455,
        vision_us=364870,
    ),
)
_LAYERS, _HIDDEN, _KV_WIDTH, _VOCAB, _TILE_PX, _ROWS = 28, 1536, 256, 151674, 448, 256


def write_internvl3_2b(folder: Path, layout: Layout = _INTERNVL3_2B) -> Path:
    """Write InternVL3-2B's shapes and delays without weights: nothing is computed.

    The embedding table is a file of holes: 889 MiB that take no disk and read as zeros. The
    tokenizer is the tiny one (ids 0 to 261).
    """
    write_texts(
        folder,
        TinyConfig(
            hidden=_HIDDEN, layers=_LAYERS, heads=12, kv_heads=2, image_px=_TILE_PX,
            context_tokens=32768,
        ),
    )  # fmt: skip
    groups = layer_groups(layout, _HIDDEN, _KV_WIDTH)
    for i in range(_LAYERS):
        model = Axmodel('layer', layout.chip, groups)
        write_axmodel(folder / layout.layer_name(i), model)
    post = post_group(_HIDDEN, _VOCAB, layout)
    write_axmodel(folder / layout.post_name, Axmodel('post', layout.chip, (post,)))
    vision = _vision_group(_TILE_PX, _ROWS, _HIDDEN, layout)
    path = folder / 'vit_axmodel' / 'internvl3_2b_vit.axmodel'
    write_axmodel(path, Axmodel('vit', layout.chip, (vision,)))
    np.lib.format.open_memmap(folder / layout.table_name, 'w+', np.float32, (_VOCAB, _HIDDEN))
    return folder


def write_internvl3_2b_nine(folder: Path) -> Path:
    """Write the same for the build with nine prefill groups."""
    return write_internvl3_2b(folder, replace(_INTERNVL3_2B, histories=tuple(range(0, 1025, 128))))


# --- by name -----------------------------------------------------------------------------------


def _tiny_kind(layout: Layout) -> Callable[[Path], Path]:
    return lambda folder: write_tiny(folder, layout)


KINDS: Final[dict[str, Callable[[Path], Path]]] = {
    **{kind: _tiny_kind(layout) for kind, layout in TINY_LAYOUTS.items()},
    'tiny-reciting': write_reciting,
    'tiny-silent': write_silent,
    'tiny-missing-layer': write_missing_layer,
    'tiny-mixed-builds': write_mixed_builds,
    'tiny-wrong-vit': write_wrong_vision,
    'tiny-internvl3.5': write_internvl35,
    'demo': write_demo,
    'internvl3-2b': write_internvl3_2b,
    'internvl3-2b-9': write_internvl3_2b_nine,
}


def model_files(folder: Path, chip: str = 'ax650') -> ModelFiles:
    """List a set's files by part, as `models.find_model` does for a catalogue model."""
    weights: dict[str, Path] = {}
    for path in sorted(folder.glob('*_together.axmodel')):
        (number,) = re.findall(r'_l(\d+)_together', path.name)
        weights[f'layers.{number}'] = path
    (weights['post'],) = folder.glob('*_post.axmodel')
    (weights['embed_tokens'],) = folder.glob('model.embed_tokens.weight*')
    (weights['vision_encoder'],) = folder.glob('vit_axmodel/*.axmodel')
    return ModelFiles(folder.name, chip, folder, folder, weights)


def main() -> None:
    """Write the set named on the command line."""
    parser = argparse.ArgumentParser(description='Write an axmodel set of the test bench.')
    parser.add_argument('kind', choices=tuple(KINDS))
    parser.add_argument('--to', type=Path, required=True, metavar='DIR')
    chosen = parser.parse_args()
    print(KINDS[chosen.kind](chosen.to))


if __name__ == '__main__':
    main()
