"""The compiled models of the emulator tests: where they are and what they are.

`test/engines/sophgo/fixtures/README.md` says what each shows and how it is rebuilt.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.bf16 import from_bf16, to_bf16

_ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = _ROOT / 'test' / 'engines' / 'sophgo' / 'fixtures'
DEMO_MODEL: Final = _ROOT / 'edge_vlm_ros' / 'demo' / 'model'


@dataclass(frozen=True)
class Fixture:
    """One compiled model.

    Attributes:
        name: Of its file, without the endings.
        chip: 'bm1684x' or 'bm1688'.
        config: Name of the folder with tokenizer and configuration; '' where there is none.
        weights: Name of the weights it was compiled from, for `support.sophgo.reference`; '' where
            there are none.
        values: Name of the file with reference values, where there are no weights.
        archive: Name of the .tar.xz that holds it with others of the same weights, which a chip's
            file holds in the same order as another's: three cost no more than one. '' = it has a
            file of its own.
    """

    name: str
    chip: str
    config: str = ''
    weights: str = ''
    values: str = ''
    archive: str = ''

    @property
    def packed(self) -> Path:
        """The compressed bmodel, or the archive it is in."""
        return FOLDER / (f'{self.archive}.tar.xz' if self.archive else f'{self.name}.bmodel.xz')

    def read(self) -> bytes:
        """Return the bmodel."""
        if not self.archive:
            return lzma.decompress(self.packed.read_bytes())
        with tarfile.open(self.packed) as archive:
            member = archive.extractfile(f'{self.name}.bmodel')
            assert member is not None
            return member.read()

    def unpack(self, folder: Path) -> Path:
        """Write the bmodel into a folder, unless it is there, and return its path."""
        target = folder / f'{self.name}.bmodel'
        if not target.exists():
            part = target.with_suffix('.part')
            part.write_bytes(self.read())
            part.rename(target)
        return target

    def config_folder(self) -> Path:
        """Return the folder with tokenizer and configuration."""
        assert self.config, f'{self.name} has none'
        return DEMO_MODEL if self.config == 'demo' else FOLDER / 'config' / self.config

    def load_config(self) -> dict[str, Any]:
        """Return config.json."""
        loaded: dict[str, Any] = json.loads((self.config_folder() / 'config.json').read_text())
        return loaded

    def load_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights by the publisher's names, as the fixture has them."""
        if self.weights == 'demo':
            return _demo_weights()
        assert self.weights, f'{self.name} has none'
        packed = (FOLDER / 'weights' / f'{self.weights}.npz.xz').read_bytes()
        with np.load(io.BytesIO(lzma.decompress(packed))) as archive:
            return {name: archive[name].astype(np.float32) for name in archive}

    def load_values(self) -> dict[str, NDArray[Any]]:
        """Return the reference values by name."""
        assert self.values, f'{self.name} has none'
        with np.load(FOLDER / 'values' / f'{self.values}.npz') as archive:
            return dict(archive)


def _demo_weights() -> dict[str, NDArray[np.float32]]:
    """Return the demo model's weights, rounded to bfloat16; needs onnx."""
    from support.onnx_weights import graph_files, read_weights

    weights = read_weights(graph_files(DEMO_MODEL))
    return {k: from_bf16(to_bf16(v.astype(np.float32))) for k, v in weights.items()}


def _own(name: str, config: str, weights: str = '') -> Fixture:
    """Return one that `tools.sophgo.compile.build` makes."""
    return Fixture(name, name.rpartition('_')[2], config, weights or config)


_ALL: Final = (
    Fixture('demo_bf16_bm1684x', 'bm1684x', 'demo', 'demo', archive='demo'),
    Fixture('demo_bf16_bm1688', 'bm1688', 'demo', 'demo', archive='demo'),
    Fixture('demo_history_bf16_bm1684x', 'bm1684x', 'demo', 'demo', archive='demo'),
    _own('internvl2_bf16_bm1684x', 'internvl2', 'internvl3'),
    _own('internvl2_bf16_bm1688', 'internvl2', 'internvl3'),
    _own('internvl2_w4bf16_bm1684x', 'internvl2', 'internvl3'),
    _own('internvl2_basic_bf16_bm1684x', 'internvl2', 'internvl3'),
    _own('internvl3_static_bf16_bm1684x', 'internvl3'),
    _own('internvl3_static_bf16_bm1688', 'internvl3'),
    _own('internvl3_dynamic_bf16_bm1684x', 'internvl3'),
    _own('internvl3_history_bf16_bm1688', 'internvl3'),
    _own('internvl3_history_sample_bf16_bm1684x', 'internvl3'),
    _own('internvl3_sample_bf16_bm1684x', 'internvl3'),
    _own('internvl3_awq_bm1684x', 'internvl3'),
    _own('internvl35_static_bf16_bm1684x', 'internvl35'),
    _own('internvl35_history_bf16_bm1688', 'internvl35'),
    _own('internvl3_oldhistory_bf16_bm1684x', 'internvl3'),
    _own('internvl3_oldhistory_bf16_bm1688', 'internvl3'),
    _own('hazard_tagged_bm1688', 'internvl3'),
    _own('qwen2vl_v2_bf16_bm1684x', 'qwen2vl'),
    _own('qwen2vl_v3_w4bf16_bm1684x', 'qwen2vl'),
    _own('qwen2vl_v4_f16_bm1684x', 'qwen2vl'),
    _own('qwen2vl_convert_bf16_bm1684x', 'qwen2vl'),
    _own('qwen2vl_dynamic_bf16_bm1684x', 'qwen2vl'),
    _own('qwen2vl_convert_bf16_bm1688', 'qwen2vl'),
    _own('qwen2_5vl_static_bf16_bm1684x', 'qwen2_5vl'),
    _own('qwen2_5vl_dynamic_bf16_bm1684x', 'qwen2_5vl'),
    _own('qwen2_5vl_history_bf16_bm1688', 'qwen2_5vl'),
    _own('qwen3vl_static_bf16_bm1684x', 'qwen3vl'),
    _own('qwen3vl_dynamic_bf16_bm1684x', 'qwen3vl'),
    _own('mllama_2024_bf16_bm1684x', 'mllama'),
    _own('mllama_2024_w4bf16_bm1684x', 'mllama'),
    _own('mllama_convert_bf16_bm1684x', 'mllama'),
    # Compiled by releases of the compiler that need an environment of their own.
    Fixture('internvl2_v111_bf16_bm1684x', 'bm1684x', values='internvl2_v111'),
    Fixture(
        'internvl3_oldhistory_v121_bf16_bm1684x',
        'bm1684x',
        'internvl3',
        values='internvl3_oldhistory_v121',
    ),
)
FIXTURES: Final = {fixture.name: fixture for fixture in _ALL}
