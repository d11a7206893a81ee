"""A made-up Qwen3-VL in the layout that Axera publishes, of the weights of the Sophgo fixtures.

One file a decoder layer with three rows of positions for a chunk and one for a token, a tower for
the patches of one grid with features for the first three layers. `FloatTwin` is the same model in
float32 (`support.sophgo.reference`, which agrees with transformers' own).

Source: AXERA-TECH/Qwen3-VL.AXERA (python, model_convert): names, shapes and their order; there
chunks are of 128, histories up to 1152, the cache 2047, the grid 24 x 24.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import PromptPart, VisionInputs
from edge_vlm_ros.vision import patch_places
from support.axera.axmodel_file import Axmodel, Group, Tensor, write_axmodel
from support.axera.deep_tower import tower_arrays
from support.axera.layers import LayerSizes
from support.axera.layout import Layout
from support.axera.sets import write_layers
from support.axera.weights import Weights, cut_weights
from support.sophgo.fixtures import FIXTURES
from support.sophgo.reference import Decoder, qwen3vl_vision

_FIXTURE: Final = FIXTURES['qwen3vl_static_bf16_bm1684x']
GRID: Final = (8, 8)
"""Of patches: 128 px, 16 rows."""

LAYOUT: Final = Layout(
    histories=tuple(range(0, 129, 16)),
    capacities=(191,),
    prefix='qwen3_vl_text',
    position_rows=3,
)
TOWER: Final = Path('vit_axmodel') / 'qwen3_vl_vision.axmodel'


def qwen3_weights() -> Weights:
    """Cut the weights of the fixtures the way axmodel sets are."""
    config, weights = _FIXTURE.load_config(), _FIXTURE.load_weights()
    language = config['text_config']
    named = {
        name.replace('model.language_model.', 'language_model.model.'): array
        for name, array in weights.items()
    }
    named['language_model.lm_head.weight'] = weights['lm_head.weight']
    sizes = LayerSizes(
        language['num_attention_heads'],
        language['num_key_value_heads'],
        language['rope_theta'],
        language['rms_norm_eps'],
    )
    rows, columns = GRID
    cut = cut_weights(named, sizes, b'', tile_px=0, vision_rows=rows * columns // 4)
    more = [_qwen3_arrays(named, i, language) for i in range(len(cut.layers))]
    layers = tuple({**layer, **add} for layer, add in zip(cut.layers, more, strict=True))
    return replace(cut, layers=layers, grid=GRID)


def _qwen3_arrays(
    named: Mapping[str, NDArray[Any]], layer: int, language: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return what a layer has that Qwen2's have not: norms of heads, axes taken in turns."""
    at = f'language_model.model.layers.{layer}.self_attn.'
    axes = np.zeros(language['head_dim'] // 2, np.int64)
    for axis, size in enumerate(language['rope_scaling']['mrope_section'][1:], 1):
        axes[axis : 3 * size : 3] = axis
    norms = {f'{part}_norm': named[f'{at}{part}_norm.weight'] for part in 'qk'}
    return {**norms, 'axes': axes}


def write_qwen3_vl(folder: Path, layout: Layout = LAYOUT) -> Path:
    """Write the set with its texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in _FIXTURE.config_folder().glob('*.json'):
        shutil.copyfile(path, folder / path.name)
    weights = qwen3_weights()
    write_layers(folder, weights, layout)
    config = _FIXTURE.load_config()
    arrays = tower_arrays(config, _FIXTURE.load_weights(), GRID)
    write_tower(folder, tower_group(weights.vision_rows, weights.hidden), arrays)
    return folder


def tower_group(
    rows: int, width: int, layers: int = 3, values: int = 512, patches: int = 64
) -> Group:
    """Make the tensors of a tower; patches of `values` for each colour."""
    names = ['hidden_states_out', *(f'deepstack_feature_{i}' for i in range(layers))]
    outputs = tuple(Tensor(name, 'f32', (rows, width)) for name in names)
    return Group((Tensor('hidden_states', 'u8', (1, patches, values, 3)),), outputs)


def write_tower(
    folder: Path, group: Group, arrays: Mapping[str, NDArray[Any]] | None = None
) -> Path:
    """Write a set's vision tower."""
    path = folder / TOWER
    write_axmodel(path, Axmodel('vit', LAYOUT.chip, (group,), dict(arrays or {})))
    return path


class FloatTwin:
    """The same model in float32, without a cache."""

    def __init__(self) -> None:
        self._config, self._weights = _FIXTURE.load_config(), _FIXTURE.load_weights()
        self._decoder = Decoder(self._config, self._weights)

    def see(self, inputs: VisionInputs) -> list[NDArray[np.float32]]:
        """Give an image's rows in the prompt, then those of the first layers."""
        places = patch_places(*inputs.grid[1:])
        rows, deepstack = qwen3vl_vision(self._config, self._weights, inputs.pixels, places)
        return [rows, *deepstack]

    def scores(
        self, part: PromptPart, images: Sequence[VisionInputs], tokens: Sequence[int]
    ) -> NDArray[np.float32]:
        """Score what could follow a prompt and each answer token but the last."""
        ids = [*part.tokens.tolist(), *tokens[:-1]]
        answer = part.next_position + np.arange(len(tokens) - 1)
        positions = np.concatenate([part.positions, np.tile(answer, (3, 1))], axis=1)
        levels = np.zeros((4, len(ids), len(self._decoder.embed([0])[0])), np.float32)
        levels[0] = self._decoder.embed(ids)
        for span in part.spans:
            rows = slice(span.first_row, span.first_row + len(span))
            for level, seen in zip(levels, self.see(images[span.image]), strict=True):
                level[span.start : span.stop] = seen[rows]
        trace = self._decoder.run(levels[0], positions, None, list(levels[1:]))
        found: NDArray[np.float32] = trace.logits[-len(tokens) :]
        return found


def bf16_rows(values: NDArray[Any]) -> NDArray[np.float32]:
    """Round as the engine keeps features."""
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)
