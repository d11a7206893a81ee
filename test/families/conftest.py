"""Fixtures of the families room: model folders as they are published, small."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

INTERNVL3 = {
    'architectures': ['InternVLChatModel'],
    'model_type': 'internvl_chat',
    'downsample_ratio': 0.5,
    'dynamic_image_size': True,
    'force_image_size': 112,
    'max_dynamic_patch': 12,
    'min_dynamic_patch': 1,
    'ps_version': 'v2',
    'select_layer': -1,
    'template': 'internvl2_5',
    'use_thumbnail': True,
    'llm_config': {'model_type': 'qwen2', 'eos_token_id': 7, 'hidden_size': 64},
    'vision_config': {'model_type': 'intern_vit_6b', 'patch_size': 14, 'image_size': 112},
}
PREPROCESSOR = {
    'crop_size': 112,
    'do_resize': True,
    'image_mean': [0.485, 0.456, 0.406],
    'image_std': [0.229, 0.224, 0.225],
    'resample': 3,
    'size': 112,
}

# A law holds however busy the machine is.
settings.register_profile('untimed', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('untimed')


def _made_tokenizers():
    path = Path(__file__).parents[1] / 'text' / 'made_tokenizers.py'
    spec = importlib.util.spec_from_file_location('made_tokenizers', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def tokenizer_json():
    """The text of a tokenizer.json with Qwen2's split and InternVL's template tokens."""
    return _made_tokenizers().qwen_like().to_str()


@pytest.fixture
def model_folder(tmp_path, tokenizer_json):
    """Make a model folder: `model_folder(template='Hermes-2')` changes config.json."""

    def make(base=INTERNVL3, *, preprocessor=None, generation=None, **changes):
        config = {**base, **changes}
        files = {
            'config.json': {key: value for key, value in config.items() if value is not ...},
            'preprocessor_config.json': {**PREPROCESSOR, **(preprocessor or {})},
        }
        if generation is not None:
            files['generation_config.json'] = generation
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content), encoding='utf-8')
        (tmp_path / 'tokenizer.json').write_text(tokenizer_json, encoding='utf-8')
        return tmp_path

    return make
