"""Rebuild the emulator's fixtures with Sophgo's compiler.

python -m tools.sophgo.compile.environment ENV             # once; needs Python 3.10
python -m tools.sophgo.compile.build --env ENV NAME...     # or `all`; see `RECIPES`
python -m tools.sophgo.compile.build --sources             # weights and configuration folders only

A build takes 5 to 60 s on two cores. The compiler's files go to `--work` (default: a scratch
folder), the result to test/engines/sophgo/fixtures/.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from support.sophgo.fixtures import FIXTURES, FOLDER, Fixture

from edge_vlm_ros.engines.bf16 import to_bf16
from tools.demo_model.checkpoint import SHIPPED, rebuild
from tools.sophgo.compile.checkpoints import CHECKPOINTS, Checkpoint
from tools.sophgo.compile.environment import Environment
from tools.sophgo.compile.parts import Parts, Shapes
from tools.sophgo.compile.weights import awq, load_checkpoint, save_checkpoint

_COMPILE: Final = Path(__file__).resolve().parent
_LIMIT_S: Final = 600.0
_PRESET: Final = 9 | lzma.PRESET_EXTREME
_SHAPES: Final = Shapes(context=64, prompt=64)
_W4: Final = ('W4BF16', '--q_group_size', '64')


@dataclass(frozen=True)
class Convert:
    """A build from a checkpoint, by the vendor's `llm_convert.py`.

    Attributes:
        checkpoint: Of `CHECKPOINTS`; 'demo' is the demo model, 'internvl3_awq' its 4-bit form.
        chip: 'bm1684x' or 'bm1688'.
        options: Of `llm_convert.py`.
        half: The half type, 'bf16' or 'f16'.
    """

    checkpoint: str
    chip: str
    options: tuple[str, ...]
    half: str = 'bf16'


@dataclass(frozen=True)
class FromParts:
    """A build from ONNX parts, by `model_transform.py` and `model_deploy.py` for each net.

    Attributes:
        checkpoint: Of `CHECKPOINTS`.
        family: Which nets: see `parts.Parts`.
        chip: 'bm1684x' or 'bm1688'.
        shapes: Rows.
        language: How the language part is quantised.
        vision: Options of the vision net's deployment.
        cache: The address mode of the `block_cache` nets.
        block: The address mode of the `block` nets; '' leaves it to the compiler.
        only: These nets alone; () = all.
    """

    checkpoint: str
    family: str
    chip: str
    shapes: Shapes = _SHAPES
    language: tuple[str, ...] = ('BF16',)
    vision: tuple[str, ...] = ('--quantize', 'BF16', '--quant_output')
    cache: str = 'io_alone'
    block: str = ''
    only: tuple[str, ...] = field(default=())

    @property
    def half(self) -> str:
        """The half type of hidden states."""
        return 'BF16' if 'BF16' in self.language[0] else 'F16'


_STATIC: Final = ('-s', '128')
_HISTORY: Final = ('-s', '256', '--use_history_kv', '--chunk_length', '64')
_OLD_HISTORY: Final = Shapes(context=192, prompt=64, history=128)
_DEMO: Final = ('-s', '256')
_QWEN: Final = (*_STATIC, '--max_pixels', '112,112')
_QWEN3: Final = (*_STATIC, '--max_pixels', '128,128')
# Qwen2-VL's vision net through the ages; numbers as in the samples' history.
_VIT_V2: Final = ('--quantize', 'F16', '--high_precision')
_VIT_V3: Final = (
    '--quantize', 'F16', '--quant_input_list', '2,3', '--quant_output_bf16', '--high_precision',
)  # fmt: skip
_VIT_V4: Final = (
    '--quantize', 'F16', '--quant_input', '--quant_input_list', '2,3', '--quant_output',
    '--high_precision',
)  # fmt: skip

RECIPES: Final[Mapping[str, Convert | FromParts]] = {
    'demo_bf16_bm1684x': Convert('demo', 'bm1684x', _DEMO),
    'demo_bf16_bm1688': Convert('demo', 'bm1688', _DEMO),
    'demo_history_bf16_bm1684x': Convert('demo', 'bm1684x', _HISTORY),
    'internvl2_bf16_bm1684x': FromParts('internvl3', 'internvl2', 'bm1684x'),
    'internvl2_bf16_bm1688': FromParts('internvl3', 'internvl2', 'bm1688', block='basic'),
    'internvl2_w4bf16_bm1684x': FromParts('internvl3', 'internvl2', 'bm1684x', language=_W4),
    'internvl2_basic_bf16_bm1684x': FromParts('internvl3', 'internvl2', 'bm1684x', cache='basic'),
    'internvl3_static_bf16_bm1684x': Convert('internvl3', 'bm1684x', _STATIC),
    'internvl3_static_bf16_bm1688': Convert('internvl3', 'bm1688', _STATIC),
    'internvl3_dynamic_bf16_bm1684x': Convert('internvl3', 'bm1684x', (*_STATIC, '--dynamic')),
    'internvl3_history_bf16_bm1688': Convert('internvl3', 'bm1688', _HISTORY),
    'internvl3_history_sample_bf16_bm1684x': Convert(
        'internvl3', 'bm1684x', (*_HISTORY, '--do_sample')
    ),
    'internvl3_sample_bf16_bm1684x': Convert('internvl3', 'bm1684x', (*_STATIC, '--do_sample')),
    'internvl35_static_bf16_bm1684x': Convert('internvl35', 'bm1684x', _STATIC),
    'internvl35_history_bf16_bm1688': Convert('internvl35', 'bm1688', _HISTORY),
    'internvl3_awq_bm1684x': Convert('internvl3_awq', 'bm1684x', _STATIC, half='w4f16'),
    'internvl3_oldhistory_bf16_bm1684x': FromParts(
        'internvl3', 'internvl3', 'bm1684x', _OLD_HISTORY
    ),
    'internvl3_oldhistory_bf16_bm1688': FromParts(
        'internvl3', 'internvl3', 'bm1688', _OLD_HISTORY, block='basic'
    ),
    'hazard_tagged_bm1688': FromParts(
        'internvl3', 'internvl3', 'bm1688', _OLD_HISTORY, only=('block_0',)
    ),
    'qwen2vl_v2_bf16_bm1684x': FromParts('qwen2vl', 'qwen2vl', 'bm1684x', vision=_VIT_V2),
    'qwen2vl_v3_w4bf16_bm1684x': FromParts(
        'qwen2vl', 'qwen2vl', 'bm1684x', language=_W4, vision=_VIT_V3
    ),
    'qwen2vl_v4_f16_bm1684x': FromParts(
        'qwen2vl', 'qwen2vl', 'bm1684x', language=('F16',), vision=_VIT_V4
    ),
    'qwen2vl_convert_bf16_bm1684x': Convert('qwen2vl', 'bm1684x', _QWEN),
    'qwen2vl_dynamic_bf16_bm1684x': Convert('qwen2vl', 'bm1684x', (*_QWEN, '--dynamic')),
    'qwen2vl_convert_bf16_bm1688': Convert('qwen2vl', 'bm1688', _QWEN),
    'qwen2_5vl_static_bf16_bm1684x': Convert('qwen2_5vl', 'bm1684x', _QWEN),
    'qwen2_5vl_dynamic_bf16_bm1684x': Convert('qwen2_5vl', 'bm1684x', (*_QWEN, '--dynamic')),
    'qwen2_5vl_history_bf16_bm1688': Convert(
        'qwen2_5vl', 'bm1688', (*_HISTORY, '--max_pixels', '112,112')
    ),
    'qwen3vl_static_bf16_bm1684x': Convert('qwen3vl', 'bm1684x', _QWEN3),
    'qwen3vl_dynamic_bf16_bm1684x': Convert('qwen3vl', 'bm1684x', (*_QWEN3, '--dynamic')),
    'mllama_2024_bf16_bm1684x': FromParts('mllama', 'mllama', 'bm1684x'),
    'mllama_2024_w4bf16_bm1684x': FromParts('mllama', 'mllama', 'bm1684x', language=_W4),
    'mllama_convert_bf16_bm1684x': Convert('mllama', 'bm1684x', ('-s', '64')),
}


class Builder:
    """Runs the compiler.

    Args:
        environment: Of the compiler.
        work: For its files.
    """

    def __init__(self, environment: Environment, work: Path) -> None:
        self._environment = environment
        self._work = work

    def build(self, name: str) -> Path:
        """Build one fixture and put it into its place, compressed."""
        recipe = RECIPES[name]
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if isinstance(recipe, Convert):
            result = self._convert(recipe, folder)
        else:
            result = self._from_parts(recipe, folder)
        # The emulator needs no chip firmware: 5 of 7 MB.
        self._run(folder, 'model_tool', '--kernel_remove', str(result))
        return pack(FIXTURES[name], result.read_bytes())

    def _convert(self, recipe: Convert, folder: Path) -> Path:
        checkpoint, out = folder / recipe.checkpoint, folder / 'out'
        _write_checkpoint(recipe, checkpoint)
        out.mkdir()
        arguments = ['-m', str(checkpoint), '-q', recipe.half, '-c', recipe.chip]
        script = str(_COMPILE / 'convert.py')
        arguments += ['--out_dir', str(out), *recipe.options]
        self._run(out, str(self._environment.python), script, *arguments)
        (result,) = out.glob('*.bmodel')
        return result

    def _from_parts(self, recipe: FromParts, folder: Path) -> Path:
        checkpoint = CHECKPOINTS[recipe.checkpoint]()
        parts = Parts(checkpoint, recipe.family, recipe.shapes)
        names = [n for n in parts.write(folder) if not recipe.only or n in recipe.only]
        for net in names:
            self._compile(recipe, net, folder)
        result = folder / 'all.bmodel'
        files = [f'{net}.bmodel' for net in _combined_order(names, parts.cross)]
        self._run(folder, 'model_tool', '--combine', *files, '-o', str(result))
        return result

    def _compile(self, recipe: FromParts, net: str, folder: Path) -> None:
        transform = ['--model_name', net, '--model_def', f'{net}.onnx', '--mlir', f'{net}.mlir']
        self._run(folder, 'model_transform.py', *transform)
        deploy = ['--mlir', f'{net}.mlir', '--chip', recipe.chip, '--model', f'{net}.bmodel']
        self._run(folder, 'model_deploy.py', *deploy, *_deploy_options(recipe, net))

    def _run(self, folder: Path, *command: str) -> None:
        log = folder / 'log.txt'
        with log.open('a') as output:
            status = subprocess.run(
                command,
                check=False,
                cwd=folder,
                env=self._environment.variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_LIMIT_S,
            ).returncode
        if status != 0:
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
            sys.exit(f'{" ".join(command[:2])} failed, {log}:\n{tail}')


def pack(fixture: Fixture, data: bytes) -> Path:
    """Compress a bmodel into its place; return the file it is in."""
    packed = fixture.packed
    packed.parent.mkdir(parents=True, exist_ok=True)
    if not fixture.archive:
        packed.write_bytes(lzma.compress(data, preset=_PRESET))
        return packed
    members = {fixture.name: data}
    if packed.exists():
        with tarfile.open(packed) as old:
            kept = set(old.getnames()) - {f'{fixture.name}.bmodel'}
        members |= {n: FIXTURES[n].read() for n in (k.removesuffix('.bmodel') for k in kept)}
    part = packed.with_suffix('.part')
    with lzma.open(part, 'wb', preset=_PRESET) as file, tarfile.open(fileobj=file, mode='w') as to:
        for name, content in sorted(members.items()):
            member = tarfile.TarInfo(f'{name}.bmodel')
            member.size = len(content)
            to.addfile(member, io.BytesIO(content))
    part.rename(packed)
    return packed


def _combined_order(names: Sequence[str], cross: Sequence[int]) -> list[str]:
    """Return nets as the samples combine them: cross layers after the others, vision last."""
    late = [f'block_{c}{layer}' for layer in cross for c in ('', 'cache_')]
    vision = [n for n in names if n.endswith('vit')]
    return [n for n in names if n not in (*late, *vision)] + [*late, *vision]


def _deploy_options(recipe: FromParts, net: str) -> list[str]:
    """Return what the samples' compile scripts give for each net."""
    cores = ['--num_core', '2'] if recipe.chip == 'bm1688' else []
    both = ['--quant_input', '--quant_output']
    if net.startswith('embedding'):
        return ['--quantize', recipe.half, *both, *cores]
    if net.startswith('block_cache'):
        mode = ['--addr_mode', recipe.cache]
        return ['--quantize', *recipe.language, *both, *mode, *cores]
    if net.startswith('block'):
        mode = ['--addr_mode', recipe.block] if recipe.block else []
        return ['--quantize', *recipe.language, *both, *mode, *cores]
    if net == 'lm_head':
        return ['--quantize', *recipe.language, '--quant_input', *cores]
    if net.endswith('vit'):
        return list(recipe.vision)
    return []  # the sampling heads stay float


def _write_checkpoint(recipe: Convert, folder: Path) -> None:
    """Write the checkpoint that `llm_convert.py` is to read; its folder's name goes into files."""
    if recipe.checkpoint == 'demo':
        _write_demo_model(folder)
        return
    checkpoint = CHECKPOINTS[recipe.checkpoint.removesuffix('_awq')]()
    if not recipe.checkpoint.endswith('_awq'):
        checkpoint.write(folder)
        return
    _declare_awq(checkpoint)
    checkpoint.write(folder, awq(checkpoint.weights))


def _declare_awq(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    awq_config = {
        'quant_method': 'awq',
        'bits': 4,
        'group_size': 64,
        'version': 'gemm',
        'zero_point': True,
        'modules_to_not_convert': None,
    }
    for part in (config, config['llm_config']):
        part['torch_dtype'] = 'float16'
        part['quantization_config'] = awq_config


def _write_demo_model(folder: Path) -> None:
    """Write the demo model's checkpoint, its float16 weights rounded to bfloat16."""
    rebuild(SHIPPED, folder)
    weights = load_checkpoint(folder / 'model.safetensors')
    bits = {name: to_bf16(values) for name, values in weights.items()}
    save_checkpoint(bits, folder / 'model.safetensors')
    config = json.loads((folder / 'config.json').read_text())
    for part in (config, config['llm_config'], config['vision_config']):
        part['torch_dtype'] = 'bfloat16'
    (folder / 'config.json').write_text(json.dumps(config, indent=1))


def write_sources() -> None:
    """Write the weights for the float reference, and the configuration folders."""
    (FOLDER / 'weights').mkdir(parents=True, exist_ok=True)
    for name, make in CHECKPOINTS.items():
        checkpoint = make()
        checkpoint.write_config(FOLDER / 'config' / name)
        if name in ('internvl3', 'internvl35', 'qwen2vl', 'qwen2_5vl', 'qwen3vl', 'mllama'):
            halves = {k: v.astype(np.float16) for k, v in checkpoint.weights.items()}
            _save(FOLDER / 'weights' / f'{name}.npz.xz', halves)


def _save(
    path: Path, arrays: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float16]]]
) -> None:
    with tempfile.TemporaryFile() as file:
        entries: dict[str, Any] = dict(arrays)
        np.savez(file, **entries)
        file.seek(0)
        path.write_bytes(lzma.compress(file.read(), preset=_PRESET))


def main() -> int:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--env', type=Path, help='folder of the compiler environment')
    parser.add_argument('--work', type=Path, help="folder for the compiler's files")
    parser.add_argument('--sources', action='store_true', help='weights and configurations')
    parser.add_argument('names', nargs='*', metavar='NAME', help='fixtures, or `all`')
    options = parser.parse_args()
    unknown = set(options.names) - {*RECIPES, 'all'}
    if unknown:
        parser.error(f'unknown: {" ".join(sorted(unknown))}; there are: {" ".join(RECIPES)}')
    if options.sources:
        write_sources()
    names = list(RECIPES) if 'all' in options.names else options.names
    if names and options.env is None:
        parser.error('--env is needed to build')
    with tempfile.TemporaryDirectory(prefix='edge_vlm_compile_') as scratch:
        builder = (
            Builder(Environment(options.env), options.work or Path(scratch)) if names else None
        )
        for name in names:
            assert builder is not None
            started = time.monotonic()
            packed = builder.build(name)
            seconds = time.monotonic() - started
            print(f'{name}: {seconds:.0f} s, {packed.stat().st_size} bytes', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
