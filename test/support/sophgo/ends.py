"""An emulated Sophgo chip, whose stand-in for sophon-sail keeps a ledger of what is held."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.ends import ROOT, Chip
from support.sophgo import emulator
from support.sophgo.fixtures import Fixture


def sophgo_chip(folder: Path, fixture: Fixture) -> Chip:
    """Make one, with a model laid out as a deployer would.

    Args:
        folder: For its files.
        fixture: The compiled model.
    """
    model = folder / 'model'
    texts = model / 'tokenizer'
    texts.mkdir(parents=True)
    fixture.unpack(model)
    for path in fixture.config_folder().glob('*.json'):
        shutil.copy(path, texts)
    variables = {
        **emulator.variables(fixture.chip, folder / 'emulator.log'),
        'EDGE_VLM_SAIL_LEDGER': str(folder / 'ledger'),
    }
    return Chip(fixture.chip, model, folder, variables, (emulator.STANDIN, ROOT, ROOT / 'test'))
