"""JSON files of a model's folder that mean harm, or were damaged: the family reads or refuses."""

from __future__ import annotations

import json

import pytest
from support.families import load_family
from support.mutations import mutations

from edge_vlm_ros.core import ModelFileError

ROUNDS = 150
GENERATION = {'eos_token_id': [5, 6], 'temperature': 0.7, 'max_new_tokens': 100}
NAMES = (
    'config.json',
    'preprocessor_config.json',
    'processor_config.json',
    'generation_config.json',
)


@pytest.fixture(
    params=['model', 'qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'mllama', 'smolvlm'],
    ids=['internvl', 'qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'mllama', 'idefics3'],
)
def folder(request):
    """Make a model folder of each family, with every file that may be there."""
    made = request.getfixturevalue(f'{request.param}_folder')()
    (made / 'generation_config.json').write_text(json.dumps(GENERATION))
    preprocessor = json.loads((made / 'preprocessor_config.json').read_text())
    (made / 'processor_config.json').write_text(json.dumps({'image_processor': preprocessor}))
    load_family(made)
    return made


def refusal(folder):
    try:
        load_family(folder)
    except ModelFileError as error:
        return error
    return None


@pytest.mark.parametrize('name', NAMES)
def test_law_a_damaged_file_is_read_or_refused(folder, name):
    path = folder / name
    if name == 'preprocessor_config.json':
        (folder / 'processor_config.json').unlink()
    refused = 0
    for damaged in mutations(path.read_bytes(), ROUNDS):
        path.write_bytes(damaged)
        error = refusal(folder)
        if error is not None:
            refused += 1
            assert str(folder) in error.message
            assert error.message.encode('utf-8')
    assert refused > ROUNDS // 10
