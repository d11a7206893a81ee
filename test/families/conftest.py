"""Fixtures of the families room: model folders as they are published, small."""

import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

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


QWEN2_VL = {
    'architectures': ['Qwen2VLForConditionalGeneration'],
    'model_type': 'qwen2_vl',
    'vision_config': {
        'depth': 2,
        'in_chans': 3,
        'patch_size': 14,
        'spatial_merge_size': 2,
        'spatial_patch_size': 14,
        'temporal_patch_size': 2,
    },
}
QWEN2_5_VL = {
    'architectures': ['Qwen2_5_VLForConditionalGeneration'],
    'model_type': 'qwen2_5_vl',
    'vision_config': {
        'depth': 2,
        'fullatt_block_indexes': [1],
        'in_chans': 3,
        'patch_size': 14,
        'spatial_merge_size': 2,
        'spatial_patch_size': 14,
        'temporal_patch_size': 2,
        'tokens_per_second': 2,
        'window_size': 112,
    },
}
QWEN3_VL = {
    'architectures': ['Qwen3VLForConditionalGeneration'],
    'model_type': 'qwen3_vl',
    'text_config': {'model_type': 'qwen3_vl_text', 'hidden_size': 64},
    'vision_config': {
        'deepstack_visual_indexes': [5, 11, 17],
        'in_channels': 3,
        'num_position_embeddings': 2304,
        'patch_size': 16,
        'spatial_merge_size': 2,
        'temporal_patch_size': 2,
    },
}
MLLAMA = {
    'architectures': ['MllamaForConditionalGeneration'],
    'model_type': 'mllama',
    'image_token_index': 128256,
    'text_config': {'model_type': 'mllama_text_model'},
    'vision_config': {'image_size': 56, 'max_num_tiles': 4, 'patch_size': 14},
}
CLIP = {
    'image_mean': [0.48145466, 0.4578275, 0.40821073],
    'image_std': [0.26862954, 0.26130258, 0.27577711],
}
QWEN2_VL_TOKENS = ('<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>')
LLAMA3_TOKENS = (
    '<|begin_of_text|>',
    '<|end_of_text|>',
    '<|start_header_id|>',
    '<|end_header_id|>',
    '<|eom_id|>',
    '<|eot_id|>',
    '<|image|>',
)


@pytest.fixture(scope='session')
def special_json():
    """The text of a tokenizer.json with the template tokens of Qwen2-VL and of Llama 3.2."""
    backend = _made_tokenizers().qwen_like()
    backend.add_special_tokens([*QWEN2_VL_TOKENS, *LLAMA3_TOKENS])
    return backend.to_str()


def _write(folder, tokenizer_json, **files):
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content), encoding='utf-8')
    (folder / 'tokenizer.json').write_text(tokenizer_json, encoding='utf-8')
    return folder


@pytest.fixture
def qwen2_vl_folder(tmp_path, special_json):
    """Make a Qwen2-VL folder; keywords change preprocessor_config.json."""

    def make(config=QWEN2_VL, generation=None, **changes):
        preprocessor = {
            'min_pixels': 56 * 56,
            'max_pixels': 12845056,
            'patch_size': 14,
            'merge_size': 2,
            'temporal_patch_size': 2,
            **CLIP,
            **changes,
        }
        kept = {key: value for key, value in preprocessor.items() if value is not ...}
        files = {'config': config, 'preprocessor_config': kept}
        if generation is not None:
            files['generation_config'] = generation
        return _write(tmp_path, special_json, **files)

    return make


@pytest.fixture
def qwen2_5_vl_folder(qwen2_vl_folder):
    """Make a Qwen2.5-VL folder; keywords change preprocessor_config.json."""

    def make(config=QWEN2_5_VL, **changes):
        return qwen2_vl_folder(config, **changes)

    return make


@pytest.fixture
def qwen3_vl_folder(tmp_path, special_json):
    """Make a Qwen3-VL folder; keywords change preprocessor_config.json."""

    def make(config=QWEN3_VL, generation=None, **changes):
        preprocessor = {
            'size': {'shortest_edge': 65536, 'longest_edge': 16777216},
            'patch_size': 16,
            'merge_size': 2,
            'temporal_patch_size': 2,
            'image_mean': [0.5, 0.5, 0.5],
            'image_std': [0.5, 0.5, 0.5],
            **changes,
        }
        kept = {key: value for key, value in preprocessor.items() if value is not ...}
        files = {'config': config, 'preprocessor_config': kept}
        if generation is not None:
            files['generation_config'] = generation
        return _write(tmp_path, special_json, **files)

    return make


@pytest.fixture
def mllama_folder(tmp_path, special_json):
    """Make a Llama 3.2 Vision folder with tiles of a size."""

    def make(tile_px=56, **changes):
        config = {**MLLAMA, 'vision_config': {**MLLAMA['vision_config'], 'image_size': tile_px}}
        preprocessor = {
            'max_image_tiles': 4,
            'size': {'height': tile_px, 'width': tile_px},
            **CLIP,
            **changes,
        }
        return _write(tmp_path, special_json, config=config, preprocessor_config=preprocessor)

    return make


IDEFICS3 = {
    'architectures': ['Idefics3ForConditionalGeneration'],
    'model_type': 'idefics3',
    'scale_factor': 2,
    'text_config': {'model_type': 'llama'},
    'vision_config': {'model_type': 'idefics3_vision', 'image_size': 64, 'patch_size': 16},
}


@pytest.fixture(scope='session')
def smolvlm_json():
    """The text of a tokenizer.json with SmolLM2's split and SmolVLM's template tokens."""
    return _made_tokenizers().smolvlm_like().to_str()


@pytest.fixture
def smolvlm_folder(tmp_path, smolvlm_json):
    """Make a SmolVLM folder with tiles of 64 px, 4 rows each; keywords change the preprocessor."""

    def make(config=None, generation=None, **changes):
        preprocessor = {
            'do_image_splitting': True,
            'image_mean': [0.5, 0.5, 0.5],
            'image_std': [0.5, 0.5, 0.5],
            'max_image_size': {'longest_edge': 64},
            'resample': 1,
            'size': {'longest_edge': 256},
            **changes,
        }
        kept = {key: value for key, value in preprocessor.items() if value is not ...}
        files = {'config': {**IDEFICS3, **(config or {})}, 'preprocessor_config': kept}
        if generation is not None:
            files['generation_config'] = generation
        return _write(tmp_path, smolvlm_json, **files)

    return make


@pytest.fixture(scope='session')
def transformers_ids(special_json):
    """Encode a rendered prompt with transformers: an independent way to its ids."""
    transformers = pytest.importorskip('transformers')
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Backend.from_str(special_json)
    )
    return lambda text: tokenizer(text, add_special_tokens=False)['input_ids']
