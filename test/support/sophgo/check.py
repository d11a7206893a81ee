"""Run every net of a compiled fixture once and compare it with the float reference.

python -m support.sophgo.check NAME...      # or `all`; prints seconds and cosines

Straight through `sophon.sail`, every value over the host: it shows that a fixture is what it says,
and knows nothing of the engine that the package drives such files with.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from support.sophgo import emulator
from support.sophgo.fixtures import FIXTURES, Fixture
from support.sophgo.nets import Nets
from support.sophgo.reference import (
    Array,
    Decoder,
    Image,
    SamplingParameters,
    Trace,
    cosine,
    internvl_vision,
    mllama_vision,
    qwen2_5vl_vision,
    qwen2vl_vision,
    sampling_head,
)

_HIDDEN: Final = -10000.0
_FIRST: Final = 4  # index of the first vision row, or of the image token
_TEXT: Final = 12  # tokens beside the vision rows
_STEPS: Final = 2
_LIMIT_S: Final = 300.0
_PATCH_VISION: Final = {'qwen2_vl': qwen2vl_vision, 'qwen2_5_vl': qwen2_5vl_vision}


class Check:
    """One fixture on the emulator.

    Args:
        fixture: Which.
        path: Its unpacked bmodel.
    """

    def __init__(self, fixture: Fixture, path: str) -> None:
        self._nets = Nets(path)
        self._config = fixture.load_config()
        self._weights = fixture.load_weights()
        self._decoder = Decoder(self._config, self._weights)
        self._random = np.random.default_rng(11)
        self._is_mrope = self._config['model_type'] in _PATCH_VISION
        self._cross = self._config.get('text_config', {}).get('cross_attention_layers', [])
        self._image: Image | None = None
        self.cosines: dict[str, float] = {}
        self.tokens: list[tuple[int, int]] = []

    def run(self) -> dict[str, Any]:
        """Run all of it; return seconds and cosines by net, and tokens with those expected."""
        vision = self._vision()
        if 'lm_head' in self._nets.names:
            self._language(vision)
        return {
            'seconds': self._nets.seconds,
            'cosines': self.cosines,
            'tokens': self.tokens,
        }

    # -- vision -----------------------------------------------------------------------------------

    def _vision(self) -> Array:
        """Run the vision net; return the reference's rows, for both to go on from."""
        kind = self._config['model_type']
        if kind in _PATCH_VISION:
            return self._qwen_vision()
        if kind == 'mllama':
            return self._mllama_vision()
        name = 'intern_vit' if 'intern_vit' in self._nets.names else 'vit'
        px = self._config['vision_config']['image_size']
        pixels = self._normal(1, 3, px, px)
        rows = internvl_vision(self._config, self._weights, pixels[0])
        if name in self._nets.names:
            self._compare(name, self._nets(name, pixels)[0], rows)
        return rows

    def _qwen_vision(self) -> Array:
        """Two frames of 4 x 4 patches; the rest of a static net's rows are padding."""
        groups, patches = (16, 16), 32
        block = np.stack(np.meshgrid(range(4), range(4), indexing='ij'), -1)
        block = block.reshape(2, 2, 2, 2, 2).transpose(0, 2, 1, 3, 4).reshape(16, 2)
        places = np.concatenate([block, block]).astype(np.int32)
        values = self._normal(patches, 1176)
        vision = _PATCH_VISION[self._config['model_type']]
        expected = vision(self._config, self._weights, values, places, groups)
        total = patches if self._nets.is_dynamic('vit') else self._nets.inputs('vit')[0][0]
        group = np.repeat([0, 1, 2], (*groups, total - patches))
        open_pairs = (group[:, None] == group) & (group < 2)
        mask = np.where(open_pairs, 0, _HIDDEN).astype(np.float32)
        mask = mask.reshape(*self._nets.inputs('vit')[2][:-2], total, total)
        values = np.pad(values, ((0, total - patches), (0, 0)))
        places = np.pad(places, ((0, total - patches), (0, 0)))
        # Each frame is one window: blocks stay in their order, and both masks are the same.
        windows = (mask, np.arange(total // 4, dtype=np.int32))
        more = windows if len(self._nets.inputs('vit')) > len((values, places, mask)) else ()
        rows = self._nets('vit', values, places, mask, *more)[0]
        self._compare('vit', rows[: patches // 4], expected)
        return expected

    def _mllama_vision(self) -> Array:
        sizes = self._config['vision_config']
        tiles, real, ratio = sizes['max_num_tiles'], 2, 2
        pixels = self._normal(tiles, 3, sizes['image_size'], sizes['image_size'])
        pixels[real:] = 0
        states = mllama_vision(self._config, self._weights, pixels, ratio, real)
        mask = (np.arange(tiles) < real).astype(np.int32)
        given = (np.array([[ratio]]), mask.reshape(self._nets.inputs('vit')[2]))
        rows = self._nets('vit', pixels, *given)[0]
        self._compare('vit', rows[:real], states[:real])
        self._image = Image(states, real, _FIRST)
        return states[:0, 0]

    # -- language ---------------------------------------------------------------------------------

    def _language(self, vision: Array) -> None:
        tokens = [int(t) for t in self._random.integers(20, 250, _TEXT)]
        before, after = tokens[:_FIRST], tokens[_FIRST:]
        ids = [*before, *[0] * len(vision), *after]
        trace = self._trace(ids, vision)
        k, v, last = self._prefill(ids, vision, trace)
        self._head(last, trace)
        self._extend(ids, vision, trace)
        for _ in range(_STEPS):
            ids.append(trace.tokens[-1])
            trace = self._trace(ids, vision)
            last = self._step(ids, k, v, trace)
            self._head(last, trace)

    def _trace(self, ids: Sequence[int], vision: Array) -> Trace:
        x = self._embedded(ids, vision)
        return self._decoder.run(x, self._positions(len(ids), len(vision)), self._image)

    def _embedded(self, ids: Sequence[int], vision: Array) -> Array:
        x = self._decoder.embed(ids)
        x[_FIRST : _FIRST + len(vision)] = vision
        return x

    def _positions(self, count: int, vision: int) -> NDArray[np.int64]:
        """Return (count,), or (3, count) with two frames of 2 x 2 vision rows."""
        if not self._is_mrope:
            return np.arange(count)
        rows = np.arange(vision)
        axes = np.stack([rows // 4, rows // 2 % 2, rows % 2]) + _FIRST
        text = np.arange(count)
        result = np.stack([text, text, text])
        result[:, _FIRST : _FIRST + vision] = axes
        result[:, _FIRST + vision :] += 2 - vision
        return result

    def _prefill(
        self, ids: list[int], vision: Array, trace: Trace
    ) -> tuple[list[Array], list[Array], Array]:
        """Run `embedding` and every block; return the caches and the last row."""
        count, rows = len(ids), self._nets.inputs('embedding')[0][1]
        x = self._nets('embedding', np.array([ids + [0] * (rows - count)], np.int32))[0]
        text = [i for i in range(count) if not _FIRST <= i < _FIRST + len(vision)]
        self._compare('embedding', x[0, text], self._decoder.embed(ids)[text])
        x[0, :count] = self._embedded(ids, vision)
        keys, values = [], []
        for layer in range(self._decoder.layers):
            name = f'block_{layer}'
            kept = count if self._nets.is_dynamic(name) else rows
            x, k, v = self._nets(name, x[:, :kept], *self._block_inputs(layer, kept, count))
            x = x[:, :kept]
            keys.append(k)
            values.append(v)
            if layer in self._cross:
                k = k[0, :: k.shape[1] // trace.keys[layer].shape[1]].transpose(1, 0, 2)
                self._compare(f'{name} keys', k, trace.keys[layer])
            else:
                self._compare(f'{name} keys', k[0, :count], trace.keys[layer])
            self._compare(name, x[0, :count], self._after(layer, trace))
        return keys, values, x[0, count - 1]

    def _extend(self, ids: list[int], vision: Array, trace: Trace) -> None:
        """Run the blocks once more for the last tokens alone, on top of a history of the first."""
        form = 'block_kv' if 'block_kv_0' in self._nets.names else 'block'
        if form == 'block' and len(self._nets.inputs('block_0')) != 5:
            return
        old, count = len(ids) - _TEXT // 2, len(ids)
        shapes = self._nets.inputs(f'{form}_0')
        is_dynamic = self._nets.is_dynamic(f'{form}_0')
        rows = count - old if is_dynamic else shapes[0][1]
        past = old if is_dynamic else shapes[-1][1]
        x = _resized(self._embedded(ids, vision)[None, old:], rows)
        place = _resized(np.arange(old, count)[None], rows).astype(np.int32)
        mask = np.full((1, 1, rows, past + rows), _HIDDEN, np.float32)
        mask[..., :old] = 0
        mask[0, 0, :, past:] = np.triu(np.full((rows, rows), _HIDDEN), 1)
        middle = [place, mask] if len(shapes) == 5 else [place]
        for layer in range(self._decoder.layers):
            name = f'{form}_{layer}'
            history = [
                _resized(cache[layer][None, :old], past) for cache in (trace.keys, trace.values)
            ]
            x, k, _ = self._nets(name, x, *middle, *history)
            x, new = x[:, :rows], count - old
            self._compare(f'{name} on history keys', k[0, :new], trace.keys[layer][old:])
            self._compare(f'{name} on history', x[0, :new], self._after(layer, trace)[old:])

    def _after(self, layer: int, trace: Trace) -> Array:
        """Return what a layer gives out: the final norm is in the newer files' last block."""
        is_last = layer == self._decoder.layers - 1
        is_old = bool({'intern_vit', 'penalty_sample_head'} & self._nets.names)
        is_old |= len(self._nets.inputs('block_0')) == 5 or bool(self._cross)
        return trace.normed if is_last and not is_old else trace.hidden[layer]

    def _block_inputs(self, layer: int, rows: int, count: int) -> list[Array]:
        """Return what a block takes beside the hidden states."""
        shapes = self._nets.inputs(f'block_{layer}')
        if layer in self._cross:
            return self._cross_inputs(rows, count)
        places = self._places(rows, count, count - _TEXT)
        if len(shapes) == 2:
            return [places]
        past = shapes[2][-1] - rows
        mask = np.full((1, 1, rows, past + rows), _HIDDEN, np.float32)
        mask[0, 0, :count, past : past + count] = np.triu(np.full((count, count), _HIDDEN), 1)
        history = [np.zeros(shape, np.float32) for shape in shapes[3:]]
        return [places, mask, *history]

    def _places(self, rows: int, count: int, vision: int) -> Array:
        places = self._positions(count, vision).astype(np.int32)
        if places.ndim == 1:
            return np.pad(places, (0, rows - count))[None]
        return np.pad(places, ((0, 0), (0, rows - count)))

    def _cross_inputs(self, rows: int, count: int) -> list[Array]:
        assert self._image is not None
        sees = (np.arange(rows) >= _FIRST) & (np.arange(rows) < count)
        mask = np.where(sees[:, None] & ~self._open_rows(), _HIDDEN, 0)
        return [self._image.states, sees[None, :, None].astype(np.float32), mask[None, None]]

    def _open_rows(self) -> NDArray[np.bool_]:
        assert self._image is not None
        tiles, rows = self._image.states.shape[:2]
        is_open: NDArray[np.bool_] = np.arange(tiles * rows) < self._image.tiles * rows
        return is_open

    def _step(self, ids: list[int], k: list[Array], v: list[Array], trace: Trace) -> Array:
        """Run `embedding_cache` and every decode block for the last token."""
        at, prompt = len(ids) - 1, len(trace.normed)
        x = self._nets('embedding_cache', np.array([[ids[-1]]], np.int32))[0]
        vision = self._vision_rows(ids)
        place = self._positions(prompt, vision)[..., -1:].astype(np.int32)
        for layer in range(self._decoder.layers):
            name = f'block_cache_{layer}'
            shapes = self._nets.inputs(name)
            if layer in self._cross:
                mask = np.where(self._open_rows(), 0, _HIDDEN)
                x = self._nets(name, x, mask, k[layer], v[layer])[0]
            else:
                context = shapes[3][1]
                mask = np.full(context + 1, _HIDDEN, np.float32)
                mask[:at] = mask[context] = 0
                for cache in (k, v):
                    cache[layer] = _resized(cache[layer], context)
                x, key, value = self._nets(
                    name, x, place.reshape(shapes[1]), mask, k[layer], v[layer]
                )
                k[layer][:, at], v[layer][:, at] = key[:, 0], value[:, 0]
            self._compare(name, x[0, 0], self._after(layer, trace)[-1])
        last: Array = x[0, 0]
        return last

    def _vision_rows(self, ids: list[int]) -> int:
        return ids[_FIRST:].index(next(t for t in ids[_FIRST:] if t)) if 0 in ids else 0

    def _head(self, row: Array, trace: Trace) -> None:
        """Run `lm_head` and the sampling heads."""
        out = self._nets('lm_head', row[None])[0]
        if out.size > 1:
            self._compare('lm_head', out, trace.logits[-1])
            token = self._nets('greedy_head', out)[0]
            self._sampling(out[0])
        else:
            token = out
        if trace.gap() > 0.2:
            self.tokens.append((int(token.reshape(-1)[0]), trace.tokens[-1]))

    def _sampling(self, logits: Array) -> None:
        best = np.argsort(-logits)
        seen = [int(best[0]), int(best[2]), 7]
        for name in ('penalty_sample_head', 'sample_head'):
            if name not in self._nets.names or name in self.cosines:
                continue
            ids = np.full((1, self._nets.inputs(name)[1][1]), seen[-1], np.int32)
            ids[0, : len(seen)] = seen
            one = {
                'penalty': np.array([1.25], np.float32),
                'temperature': np.array([0.5], np.float32),
                'top_k': np.array([50], np.int32),
                'top_p': np.array([0.75], np.float32),
            }
            order: tuple[str, ...] = ('penalty', 'temperature', 'top_k', 'top_p')
            if name == 'penalty_sample_head':
                order = ('top_p', 'temperature', 'penalty')
            found, tokens = self._nets(name, logits[None], ids, *(one[key] for key in order))
            parameters = SamplingParameters(penalty=1.25, temperature=0.5, top_p=0.75)
            expected, expected_tokens = sampling_head(logits, seen, parameters)
            self._compare(name, found, expected)
            self.tokens.append((int(tokens.reshape(-1)[0]), int(expected_tokens[0])))

    def _compare(self, what: str, found: Array, expected: Array) -> None:
        """Note the worst cosine under a name."""
        assert found.size == expected.size, (what, found.shape, expected.shape)
        self.cosines[what] = min(self.cosines.get(what, 1.0), cosine(found, expected))

    def _normal(self, *shape: int) -> NDArray[np.float32]:
        return self._random.standard_normal(shape).astype(np.float32)


def _resized(values: Array, rows: int) -> Array:
    """Cut or fill (1, tokens, ...) to so many tokens."""
    missing = rows - values.shape[1]
    if missing <= 0:
        cut: Array = values[:, :rows]
        return np.array(cut)
    return np.pad(values, ((0, 0), (0, missing), *((0, 0),) * (values.ndim - 2)))


def check(name: str, path: str) -> dict[str, Any]:
    """Check one fixture, in a process with the emulator of its chip."""
    return Check(FIXTURES[name], path).run()


def check_fixture(name: str, folder: Path) -> dict[str, Any]:
    """Unpack a fixture and check it in a process of its own."""
    fixture = FIXTURES[name]
    path = str(fixture.unpack(folder))
    result: dict[str, Any] = emulator.call(fixture.chip, check, name, path, time_limit_s=_LIMIT_S)
    return result


def main() -> int:
    """Check what the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('names', nargs='+', metavar='NAME')
    names: list[str] = parser.parse_args().names
    if names == ['all']:
        names = [f.name for f in FIXTURES.values() if f.weights and f.packed.exists()]
    with tempfile.TemporaryDirectory(prefix='edge_vlm_check_') as folder:
        for name in names:
            started = time.perf_counter()
            result = check_fixture(name, Path(folder))
            result['whole_s'] = time.perf_counter() - started
            print(name, json.dumps(result, default=lambda x: round(float(x), 6)), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
