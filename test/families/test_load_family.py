"""From a model folder to its family; what is wrong is named."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from support.families import load_family

from edge_vlm_ros.core import BadRequestError, ModelFileError
from edge_vlm_ros.families.internvl import InternVlFamily, InternVlOptions


@pytest.mark.parametrize('model_type', ['internvl_chat', 'internvl'])
def test_internvl_is_known_by_its_model_type(model_folder, model_type):
    assert isinstance(load_family(model_folder(model_type=model_type)), InternVlFamily)


def test_an_unknown_family_is_refused_with_what_was_found_and_what_is_known(model_folder):
    with pytest.raises(ModelFileError, match=r'model_type is "llava", expected one of idefics3,'):
        load_family(model_folder(model_type='llava'))


def test_a_config_without_a_family_is_refused(model_folder):
    with pytest.raises(ModelFileError, match=r'model_type is missing; expected one of idefics3'):
        load_family(model_folder(model_type=...))


def test_the_config_of_the_language_model_inside_is_told_from_the_models_own(model_folder):
    with pytest.raises(ModelFileError, match=r'of the language model inside: the one of the whol'):
        load_family(model_folder(model_type='qwen3', template=...))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r'there is no model folder .*nowhere'):
        load_family(tmp_path / 'nowhere')


@pytest.mark.parametrize('name', ['config.json', 'preprocessor_config.json'])
def test_a_missing_file_is_named(model_folder, name):
    folder = model_folder()
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=f'cannot read .*/{name}: No such file'):
        load_family(folder)


@pytest.mark.parametrize('content', [b'', b'{"model_type": ', b'\xff\xfe{}', b'[' * 100_000])
@pytest.mark.parametrize(
    'name', ['config.json', 'preprocessor_config.json', 'generation_config.json']
)
def test_a_damaged_file_is_named(model_folder, name, content):
    folder = model_folder()
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=f'{name} is damaged'):
        load_family(folder)


def test_a_file_that_holds_no_object_is_refused(model_folder):
    folder = model_folder()
    (folder / 'config.json').write_text('[1, 2]')
    with pytest.raises(ModelFileError, match=r'config\.json holds \[1, 2\], not a JSON object'):
        load_family(folder)


@pytest.mark.parametrize(
    ('changes', 'complaint'),
    [
        ({'force_image_size': 'big'}, r'force_image_size is "big", expected a whole number'),
        ({'force_image_size': ..., 'vision_config': {}}, r'vision_config\.\w+ is missing'),
        ({'vision_config': 3}, r'vision_config is 3, expected an object'),
        ({'vision_config': {'patch_size': 15}}, r'no whole number of visual tokens'),
        ({'downsample_ratio': 0.3}, r'ratio 0\.3 give no whole number of visual tokens'),
        ({'downsample_ratio': 2}, r'downsample_ratio is 2, expected a number'),
        ({'max_dynamic_patch': 0}, r'max_dynamic_patch is 0, expected a whole number above 0'),
        ({'min_dynamic_patch': 5, 'max_dynamic_patch': 4}, r'at least 5 tiles, but at most 4'),
        ({'dynamic_image_size': 'yes'}, r'dynamic_image_size is "yes", expected true or false'),
        ({'template': 'vicuna'}, r'template is "vicuna", expected one of internvl2_5, Hermes-2'),
        ({'template': ...}, r'template is missing; expected one of internvl2_5'),
        ({'system_message': 5}, r'system_message is 5, expected a text'),
        ({'eos_token_id': 'x'}, r'eos_token_id is "x", expected a token id'),
        ({'preprocessor': {'image_mean': [0.5]}}, r'image_mean is \[0\.5\], expected three numb'),
        (
            {'preprocessor': {'image_std': [1, 0, 1]}},
            r'image_std is \[1, 0, 1\], expected numbers',
        ),
        ({'preprocessor': {'image_std': None}}, r'image_std is missing; expected three numbers'),
        ({'generation': {'eos_token_id': [-1]}}, r'eos_token_id is \[-1\], expected a token id'),
    ],
)
def test_what_the_files_say_wrongly_is_named(model_folder, changes, complaint):
    with pytest.raises(ModelFileError, match=complaint):
        load_family(model_folder(**changes))


@pytest.mark.parametrize(
    'kind',
    [
        'model_folder',
        'qwen2_vl_folder',
        'qwen2_5_vl_folder',
        'qwen3_vl_folder',
        'mllama_folder',
    ],
)
def test_a_folder_that_transformers_5_saved_gives_the_same_family(request, kind):
    folder = request.getfixturevalue(kind)()
    expected = load_family(folder).settings
    older = folder / 'preprocessor_config.json'
    content = {'image_processor': json.loads(older.read_text()), 'processor_class': 'Processor'}
    (folder / 'processor_config.json').write_text(json.dumps(content))
    older.unlink()
    assert replace(load_family(folder).settings, tokenizer=expected.tokenizer) == expected


def test_options_of_another_family_are_refused_with_those_of_this_one(model_folder):
    with pytest.raises(BadRequestError) as caught:
        load_family(model_folder(), min_pixels=5)
    assert caught.value.message == (
        'family internvl has no option min_pixels; family internvl takes max_tiles, resize'
    )


def test_a_tokenizer_without_the_placeholder_is_refused(model_folder, tokenizer_json):
    folder = model_folder()
    text = tokenizer_json.replace('<IMG_CONTEXT>', '<OTHER>')
    (folder / 'tokenizer.json').write_text(text, encoding='utf-8')
    with pytest.raises(ModelFileError, match="has no token '<IMG_CONTEXT>'"):
        load_family(folder)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(BadRequestError, match='max_tiles is a whole number, 0 or more, not -1'):
        InternVlOptions(max_tiles=-1)
    with pytest.raises(BadRequestError, match="'few'"):
        InternVlOptions(max_tiles='few')
    with pytest.raises(BadRequestError, match="resize is exact or fast, not 'best'"):
        InternVlOptions(resize='best')


def test_importing_the_room_loads_no_opencv_and_no_transformers():
    code = """
import sys
import edge_vlm_ros.families
assert not {'cv2', 'transformers', 'torch'} & set(sys.modules)
"""
    subprocess.run([sys.executable, '-c', code], check=True)
