"""Packages of the vendor's axllm: followed where they are complete, else refused with the cure."""

import json

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.models import find_model

LAYERS = 3


@pytest.fixture(autouse=True)
def no_models(tmp_path, monkeypatch):
    """Hide what this machine has in the usual places."""
    monkeypatch.delenv('EDGE_VLM_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))


def put_package(folder, *, name='AXERA-TECH/InternVL3_5-1B_GPTQ_INT4', layers=LAYERS, **changes):
    """Write the files of a package, all empty but config.json.

    Source: AXERA-TECH/ax-llm, documentation of config.json.
    """
    config = {
        'model_name': name,
        'tokenizer_type': 'Qwen3',
        'url_tokenizer_model': 'qwen3_tokenizer.txt',
        'template_filename_axmodel': 'qwen3_p128_l%d_together.axmodel',
        'axmodel_num': layers,
        'filename_post_axmodel': 'qwen3_post.axmodel',
        'filename_tokens_embed': 'model.embed_tokens.weight.bfloat16.bin',
        'tokens_embed_num': 151936,
        'tokens_embed_size': 1024,
        'vlm_type': 'InternVL3',
        'filename_image_encoder_axmodel': 'encoder_448.axmodel',
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps({k: v for k, v in config.items() if v != ''}))
    names = [config['template_filename_axmodel'] % i for i in range(layers)]
    named = ('filename_post_axmodel', 'filename_tokens_embed', 'url_tokenizer_model')
    names += [config[key] for key in named]
    for file in [*names, config['filename_image_encoder_axmodel'] or 'x.txt', 'post_config.json']:
        (folder / file).write_text('{}')
    return folder


def put_texts(folder):
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text('{"model_type": "internvl_chat"}')
    (folder / 'tokenizer.json').write_text('{}')
    return folder


def test_a_package_loads_with_the_original_models_tokenizer_beside_it(tmp_path):
    """Its own list is followed: the vision tower has a name that nobody would take for one."""
    package = put_package(tmp_path / 'InternVL3_5-1B-AX650')
    texts = put_texts(package / 'tokenizer')
    for named in (package, tmp_path):
        found = find_model('ax650', str(named))
        assert found.tokenizer_folder == texts
        assert found.weights['vision_encoder'] == package / 'encoder_448.axmodel'
        assert len(found.weights) == LAYERS + 3
        assert found.family == 'internvl'


@pytest.mark.parametrize('place', ['InternVL3_5-1B', '../InternVL3_5-1B_tokenizer'])
def test_or_in_a_folder_of_its_own(tmp_path, place):
    package = put_package(tmp_path / 'package')
    texts = put_texts(package / place)
    assert find_model('ax650', str(package)).tokenizer_folder.samefile(texts)


def test_of_packages_for_several_chips_each_chip_gets_its_own(tmp_path):
    for name in ('AX650', 'AX620E'):
        put_texts(put_package(tmp_path / f'InternVL3_5-1B-{name}') / 'tokenizer')
    for chip, name in (('ax650', 'AX650'), ('ax630c', 'AX620E')):
        found = find_model(chip, str(tmp_path))
        own = tmp_path / f'InternVL3_5-1B-{name}'
        assert {path.parent for path in found.weights.values()} == {own}
        assert found.tokenizer_folder == own / 'tokenizer'


def test_one_of_the_catalogue_is_found_by_name(tmp_path):
    """As it is fetched: the package below, the original model's tokenizer beside it."""
    home = tmp_path / 'ax630c' / 'internvl3.5-1b-int4'
    package = put_package(home / 'InternVL3_5-1B-AX620E', layers=28)
    texts = put_texts(home / 'tokenizer')
    found = find_model('ax630c', 'internvl3.5-1b-int4', [tmp_path])
    assert found.weights['vision_encoder'] == package / 'encoder_448.axmodel'
    assert (found.tokenizer_folder, len(found.weights)) == (texts, 31)


def test_without_it_the_message_says_where_it_comes_from(tmp_path):
    package = put_package(tmp_path / 'package')
    with pytest.raises(ModelFileError) as caught:
        find_model('ax650', str(package))
    assert caught.value.message == (
        f'{package}: missing config.json and tokenizer.json of the original model: this is a '
        'package of axllm, and qwen3_tokenizer.txt is read by axllm alone; '
        "hf download OpenGVLab/InternVL3_5-1B --include '*.json' --include '*.txt' "
        f'--local-dir {package}/tokenizer'
    )


def test_a_tokenizer_beside_the_packages_own_config_is_not_taken_for_the_models(tmp_path):
    package = put_package(tmp_path / 'package')
    (package / 'tokenizer.json').write_text('{}')
    with pytest.raises(ModelFileError, match='of the original model'):
        find_model('ax650', str(package))


def test_of_a_model_that_nobody_knows_the_name_is_given(tmp_path):
    package = put_package(tmp_path / 'package', name='Somebodys-VLM')
    with pytest.raises(ModelFileError, match=r"copy those of Somebodys-VLM's original repository"):
        find_model('ax650', str(package))


def test_a_layer_that_the_package_counts_and_does_not_hold_is_missing(tmp_path):
    package = put_package(tmp_path / 'package', axmodel_num=LAYERS + 1)
    put_texts(package / 'tokenizer')
    with pytest.raises(ModelFileError, match=r'missing qwen3_p128_l3_together\.axmodel$'):
        find_model('ax650', str(package))


def test_a_language_model_alone_is_refused(tmp_path):
    package = put_package(tmp_path / 'package', filename_image_encoder_axmodel='')
    put_texts(package / 'tokenizer')
    with pytest.raises(ModelFileError, match='names no vision tower'):
        find_model('ax650', str(package))


@pytest.mark.parametrize('wrong', [{'template_filename_axmodel': 7}, {'axmodel_num': 'many'}])
def test_a_damaged_config_is_named(tmp_path, wrong):
    package = put_package(tmp_path / 'package')
    config = json.loads((package / 'config.json').read_text())
    (package / 'config.json').write_text(json.dumps({**config, **wrong}))
    with pytest.raises(ModelFileError, match=r'package/config\.json: '):
        find_model('ax650', str(package))
