"""Tiny random checkpoints of the families, in the form their publishers use."""

from __future__ import annotations

from typing import Final

from tools.sophgo.compile.checkpoints.checkpoint import Checkpoint
from tools.sophgo.compile.checkpoints.internvl import (
    internvl2,
    internvl2_phi3,
    internvl3,
    internvl35,
)
from tools.sophgo.compile.checkpoints.mllama import mllama
from tools.sophgo.compile.checkpoints.qwen2_5vl import qwen2_5vl
from tools.sophgo.compile.checkpoints.qwen2vl import qwen2vl
from tools.sophgo.compile.checkpoints.qwen3vl import qwen3vl

__all__ = ['CHECKPOINTS', 'Checkpoint']

CHECKPOINTS: Final = {
    'internvl2': internvl2,
    'internvl2_phi3': internvl2_phi3,
    'internvl3': internvl3,
    'internvl35': internvl35,
    'qwen2vl': qwen2vl,
    'qwen2_5vl': qwen2_5vl,
    'qwen3vl': qwen3vl,
    'mllama': mllama,
}
