"""Sophgo's `llm_convert.py`, with two of its converters changed in memory as they are loaded.

Runs in the compiler's environment: `environment.Environment` sets the variables.

* InternVL3: the vision tower's sizes are constants there (448 px, patch 14, width 1024); here they
  follow the checkpoint's config.json, so a tiny tower can be compiled. A stock tower needs no
  change.
* Llama 3.2 Vision: as shipped it refuses itself (release 1.30.2): the vision net's shapes are
  checked before its weights are saved, and three results are declared one dimension short. It also
  changes a number that its other threads read: one thread here.
"""

import os
import runpy
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

_GRID = 'self.image_size // self.patch_size'
_TOKENS = f'(({_GRID})**2 + 1)'
_PATCHES = f'({_GRID})**2'
_HALF = f'({_GRID}) // 2'
_WIDTH = 'self.vit_hidden_size'
_INTERNVL3 = (
    ('const_val=0.125', 'const_val=self.vit_head_dim**-0.5'),
    (f'[1, {_WIDTH}, 32, 32]', f'[1, {_WIDTH}, {_GRID}, {_GRID}]'),
    ('ends=[1, int64_max, 1024]', f'ends=[1, int64_max, {_WIDTH}]'),
    ('T([1, 1024, 1024])', f'T([1, {_PATCHES}, {_WIDTH}])'),
    # These two are declared the wrong way round, which nobody sees while the width is 1024.
    (f'ReshapeOp(T([1, 1024, {_WIDTH}])', f'ReshapeOp(T([1, {_WIDTH}, {_PATCHES}])'),
    (f'PermuteOp(T([1, {_WIDTH}, 1024])', f'PermuteOp(T([1, {_PATCHES}, {_WIDTH}])'),
    ('[1, 32, 16, 2048]', f'[1, {_GRID}, {_HALF}, {_WIDTH} * 2]'),
    ('[1, 16, 32, 2048]', f'[1, {_HALF}, {_GRID}, {_WIDTH} * 2]'),
    ('[1, 16, 16, self.vit_intermediate_size]', f'[1, {_HALF}, {_HALF}, {_WIDTH} * 4]'),
    ('1025', _TOKENS),
)
_SAVE_LATE = '        self.save_mlir_module(vit_mlir, name)\n        save_weights()\n'
_SAVE_FIRST = '        save_weights()\n        self.save_mlir_module(vit_mlir, name)\n'
_TILES = '[1, self.max_num_tiles * '
_TILES_RIGHT = '[1, 1, self.max_num_tiles * '
_MLLAMA = (
    (_SAVE_LATE, _SAVE_FIRST),
    (f'top.GatherOp(T({_TILES}', f'top.GatherOp(T({_TILES_RIGHT}'),
    (f'top.GatherOp(T(\n            {_TILES}', f'top.GatherOp(T(\n            {_TILES_RIGHT}'),
)


def internvl3(source: str) -> str:
    """Return the InternVL3 converter with sizes that follow the checkpoint."""
    source = changed(source, _INTERNVL3)
    head, mark, merger = source.partition('# merge\n')
    # Behind the pixel shuffle the width is four times the tower's, not that of its MLP.
    return head + mark + merger.replace('self.vit_intermediate_size', f'({_WIDTH} * 4)')


def mllama(source: str) -> str:
    """Return the Llama 3.2 Vision converter without its faults."""
    os.environ.setdefault('LLM_GEN_MLIR_WORKERS', '1')
    return changed(source, _MLLAMA)


def changed(source: str, replacements: Sequence[tuple[str, str]]) -> str:
    """Replace texts, each of which must be there.

    Raises:
        SystemExit: One is not: another release of the compiler.
    """
    for old, new in replacements:
        if old not in source:
            sys.exit(f'this release of tpu_mlir is another than the one tried: no {old!r}')
        source = source.replace(old, new)
    return source


def load_changed(name: str, change: Callable[[str], str]) -> None:
    """Put a changed converter where the compiler will look for it."""
    import llm  # type: ignore[import-not-found]  # of the compiler's environment

    file = Path(llm.__file__).with_name(f'{name}.py')
    module = types.ModuleType(f'llm.{name}')
    module.__package__ = 'llm'
    sys.modules[module.__name__] = module
    exec(compile(change(file.read_text()), f'{file} (changed)', 'exec'), vars(module))  # noqa: S102


def main() -> None:
    """Run the compiler's own command line."""
    load_changed('InternVL3Converter', internvl3)
    load_changed('Llama3_2VConverter', mllama)
    tool = Path(os.environ['TPUC_ROOT']) / 'python' / 'tools' / 'llm_convert.py'
    sys.argv[0] = str(tool)
    runpy.run_path(str(tool), run_name='__main__')


if __name__ == '__main__':
    main()
