"""The compiled models of the emulator tests: where they are and what they are.

`test/engines/sophgo/fixtures/README.md` tells what each shows and how it is rebuilt.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FOLDER: Final = Path(__file__).resolve().parents[2] / 'test' / 'engines' / 'sophgo' / 'fixtures'


@dataclass(frozen=True)
class Fixture:
    """One compiled model.

    Attributes:
        name: Of its file, without the endings.
        chip: 'bm1684x' or 'bm1688'.
        reference: Name of the file with reference values; '' where there is none.
        config: Name of the folder with tokenizer and configuration; '' where there is none.
    """

    name: str
    chip: str
    reference: str = ''
    config: str = ''

    @property
    def packed(self) -> Path:
        """The compressed bmodel."""
        return FOLDER / f'{self.name}.bmodel.xz'

    def unpack(self, folder: Path) -> Path:
        """Write the bmodel into a folder, unless it is there, and return its path."""
        target = folder / f'{self.name}.bmodel'
        if not target.exists():
            part = target.with_suffix('.part')
            part.write_bytes(lzma.decompress(self.packed.read_bytes()))
            part.rename(target)
        return target

    def config_folder(self) -> Path:
        """Return the folder with tokenizer and configuration."""
        assert self.config, f'{self.name} has none'
        return FOLDER / 'config' / self.config

    def values(self) -> dict[str, NDArray[Any]]:
        """Return the reference values by name."""
        assert self.reference, f'{self.name} has none'
        with np.load(FOLDER / 'reference' / f'{self.reference}.npz') as archive:
            return dict(archive)


def _chip_of(name: str) -> str:
    return name.rpartition('_')[2]


_REFERENCES: Final = {
    'internvl2_bf16_bm1684x': 'internvl2',
    'internvl2_bf16_bm1688': 'internvl2',
    'internvl2_w4bf16_bm1684x': 'internvl2',
    'internvl2_basic_bf16_bm1684x': 'internvl2',
    'internvl2_v111_bf16_bm1684x': 'internvl2',
    'internvl3_oldhistory_bf16_bm1684x': 'internvl3_oldhistory',
    'internvl3_oldhistory_bf16_bm1688': 'internvl3_oldhistory',
    'internvl3_oldhistory_v121_bf16_bm1684x': 'internvl3_oldhistory_v121',
    'hazard_tagged_bm1688': '',
    'internvl3_static_bf16_bm1684x': '',
    'internvl3_static_bf16_bm1688': '',
    'internvl3_dynamic_bf16_bm1684x': '',
    'internvl3_history_sample_bf16_bm1684x': '',
    'internvl3_history_bf16_bm1688': '',
    'internvl3_sample_bf16_bm1684x': '',
    'internvl3_awq_bm1684x': '',
    'qwen2vl_v2_bf16_bm1684x': 'qwen2vl',
    'qwen2vl_v3_w4bf16_bm1684x': 'qwen2vl',
    'qwen2vl_v4_f16_bm1684x': 'qwen2vl',
    'qwen2vl_convert_bf16_bm1684x': '',
    'mllama_2024_bf16_bm1684x': 'mllama',
    'mllama_2024_w4bf16_bm1684x': 'mllama',
    'mllama_convert_bf16_bm1684x': '',
}
_CONFIGS: Final = {
    'internvl3_static_bf16_bm1684x': 'internvl3',
    'internvl3_static_bf16_bm1688': 'internvl3',
    'internvl3_dynamic_bf16_bm1684x': 'internvl3',
    'internvl3_history_sample_bf16_bm1684x': 'internvl3',
    'internvl3_history_bf16_bm1688': 'internvl3',
    'internvl3_sample_bf16_bm1684x': 'internvl3',
    'internvl3_oldhistory_v121_bf16_bm1684x': 'internvl3',
    'internvl3_awq_bm1684x': 'internvl3',
    'qwen2vl_convert_bf16_bm1684x': 'qwen2vl',
    'mllama_convert_bf16_bm1684x': 'mllama',
}
FIXTURES: Final = {
    name: Fixture(name, _chip_of(name), reference, _CONFIGS.get(name, ''))
    for name, reference in _REFERENCES.items()
}
