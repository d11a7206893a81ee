"""Folders that transformers 5 saved are read as those that hold the same model in older form.

It writes processor_config.json in place of preprocessor_config.json, puts the language model's
numbers into `text_config` and the frequencies into `rope_parameters`, and calls the type `dtype`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from edge_vlm_ros.core import ModelConfig
from edge_vlm_ros.families import read_family

transformers = pytest.importorskip('transformers', minversion='5', reason='transformers 5')
pytest.importorskip('torch', reason='its image processors (reference extra)')

pytestmark = pytest.mark.reference

FIXTURES = Path(__file__).parents[1] / 'engines/sophgo/fixtures/config'


def save_again(folder, to):
    """Let transformers read a folder and save what it read; the processor as its classes do."""
    transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False).save_pretrained(to)
    transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(to)
    images = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    nested = {'image_processor': json.loads(images.to_json_string())}
    (to / 'processor_config.json').write_text(json.dumps(nested))
    return ModelConfig(to)


@pytest.mark.filterwarnings('ignore')  # transformers' own
@pytest.mark.parametrize('family', ['qwen2vl', 'mllama'])
def test_a_folder_saved_by_transformers_5_says_the_same(family, tmp_path):
    old = ModelConfig(FIXTURES / family)
    new = save_again(FIXTURES / family, tmp_path)
    assert not (tmp_path / 'preprocessor_config.json').exists()
    names = [field.name for field in fields(read_family(old)) if field.name != 'tokenizer']
    before, after = read_family(old), read_family(new)
    for name in names:
        assert getattr(after, name) == getattr(before, name), name
    for key in ('hidden_size', 'num_hidden_layers', 'vocab_size'):
        assert new.language.count(key) == old.language.count(key)
    text = 'Is the café open? <|im_end|>'
    assert after.tokenizer.encode(text) == before.tokenizer.encode(text)


def test_llamas_published_processor_of_transformers_5_is_read(tmp_path):
    folder = tmp_path / 'llama'
    shutil.copytree(FIXTURES / 'mllama', folder)
    (folder / 'preprocessor_config.json').unlink()
    processor = {
        'image_processor': {
            'do_normalize': True,
            'image_mean': [0.48145466, 0.4578275, 0.40821073],
            'image_processor_type': 'MllamaImageProcessor',
            'image_std': [0.26862954, 0.26130258, 0.27577711],
            'max_image_tiles': 4,
            'resample': 2,
            'size': {'height': 56, 'width': 56},
        },
        'processor_class': 'MllamaProcessor',
    }
    (folder / 'processor_config.json').write_text(json.dumps(processor))
    assert read_family(ModelConfig(folder)).normalise.mean[0] == pytest.approx(0.48145466)
