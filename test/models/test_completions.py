"""Vendors' tokenizer folders without config.json: completed for a model that is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.families import read_family
from edge_vlm_ros.models import find_model
from edge_vlm_ros.text import PHI3

FIXTURES = Path(__file__).parents[1] / 'engines/sophgo/fixtures/config'
TWO_B = 'internvl2-2b_bm1688_int4_2core.bmodel'
FOUR_B = 'internvl2-4b_bm1684x_int4.bmodel'
THREE = 'internvl3-2b-awq_w4bf16_seq2048_bm1684x_1dev_20250716_105401.bmodel'
LACKING = ('config.json', 'preprocessor_config.json', 'generation_config.json')


@pytest.fixture(autouse=True)
def no_models(tmp_path, monkeypatch):
    """Hide what this machine has in the usual places."""
    monkeypatch.delenv('EDGE_VLM_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))


@pytest.fixture
def put(tmp_path):
    """Put a bmodel and tokenizer folders of a family without their config files below a folder."""

    def write(name, bmodel, **folders):
        home = tmp_path / name
        home.mkdir()
        (home / bmodel).touch()
        for folder, family in folders.items():
            leave_out = shutil.ignore_patterns(*LACKING)
            shutil.copytree(FIXTURES / family, home / folder, ignore=leave_out)
        return home

    return write


def test_sophon_demos_folder_is_completed_for_its_model(put, tmp_path):
    home = put('internvl2-4b', FOUR_B, token_config_4b='internvl2_phi3')
    files = find_model('bm1684x', 'internvl2-4b', [tmp_path])
    assert files.tokenizer_folder == home / 'token_config_4b'
    assert (files.family, files.config.language.count('vocab_size')) == ('internvl', 32020)
    settings = read_family(files.config)
    assert settings.form.template is PHI3
    assert settings.tokens_per_tile == 256
    assert settings.normalise.mean == (0.485, 0.456, 0.406)


def test_of_two_folders_the_one_of_the_models_size_is_taken(put, tmp_path):
    home = put(
        'internvl2-2b', TWO_B, token_config_4b='internvl2_phi3', token_config_2b='internvl2'
    )
    files = find_model('bm1688', 'internvl2-2b', [tmp_path])
    assert files.tokenizer_folder == home / 'token_config_2b'
    assert files.config.model.text('template') == 'internlm2-chat'


def test_a_file_that_is_named_by_path_is_known_by_its_name(put):
    home = put('elsewhere', THREE, config='internvl3')
    files = find_model('bm1684x', str(home / THREE))
    assert files.tokenizer_folder == home / 'config'
    assert files.config.language.count('hidden_size') == 1536
    assert read_family(files.config).tiling.max_tiles == 12


def test_a_file_that_is_there_counts(put):
    home = put('elsewhere', THREE, config='internvl3')
    own = (FIXTURES / 'internvl3/preprocessor_config.json').read_text()
    (home / 'config/preprocessor_config.json').write_text(own.replace('0.485', '0.25'))
    files = find_model('bm1684x', str(home))
    assert files.config.preprocessor.three('image_mean')[0] == 0.25
    assert files.config.has_preprocessor


def test_of_an_unknown_model_the_one_missing_file_is_named(put):
    home = put('elsewhere', 'mine.bmodel', token_config='internvl2')
    with pytest.raises(ModelFileError) as caught:
        find_model('bm1684x', str(home))
    wanted = f"missing config.json of the model's own repository, beside the tokenizer in {home}"
    assert wanted in caught.value.message
    assert 'tokenizer.json' not in caught.value.message


def test_of_a_known_name_whose_sizes_are_not_known_the_repository_is_named(put, tmp_path):
    put('qwen2-vl-7b', 'qwen2-vl-7b_int4_seq1536_1dev.bmodel', config='qwen2vl')
    with pytest.raises(ModelFileError, match=r'missing config.json of Qwen/Qwen2-VL-7B-Instruct,'):
        find_model('bm1684x', 'qwen2-vl-7b', [tmp_path])


def test_folders_that_cannot_be_told_apart_are_listed(put):
    home = put('elsewhere', THREE, token_a='internvl3', token_b='internvl3')
    with pytest.raises(ModelFileError, match=r'one tokenizer wanted, .* lie .*token_a, .*token_b'):
        find_model('bm1684x', str(home))


def test_a_mistake_in_a_completed_folder_names_where_the_value_is_from(put, tmp_path):
    put('internvl2-4b', FOUR_B, token_config_4b='internvl2_phi3')
    config = find_model('bm1684x', 'internvl2-4b', [tmp_path]).config
    error = config.model.error('template', 'another')
    assert error.message.startswith('config.json (the catalogue, OpenGVLab/InternVL2-4B)')
