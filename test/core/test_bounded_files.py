"""Small files of a model's folder that mean harm: read within bounds, or refused as damaged."""

import json
import os

import pytest
from support.mutations import mutations

from edge_vlm_ros.core import (
    ModelConfig,
    ModelFileError,
    read_bounded,
    read_json_file,
    require_regular,
)
from edge_vlm_ros.core.bounded_yaml import read_yaml_file

BOMB = 'a: &a [1,1,1,1,1,1,1,1,1,1]\n' + ''.join(
    f'{new}: &{new} [{",".join([f"*{old}"] * 10)}]\n'
    for old, new in zip('abcdefgh', 'bcdefghi', strict=True)
)
CONFIG = {
    'model_type': 'internvl_chat',
    'llm_config': {'max_position_embeddings': 4096, 'hidden_size': 64, 'num_hidden_layers': 4},
    'vision_config': {'image_size': 224, 'patch_size': 14},
    'downsample_ratio': 0.5,
    'image_mean': [0.5, 0.5, 0.5],
    'eos_token_id': [1, 2],
}


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        ('[' * 100_000, 'damaged'),
        ('{"a":' * 1_000_000, 'damaged'),
        ('[' * 70 + ']' * 70, 'nested more than 64 deep'),
        ('{"a": 1e999}', 'no finite number'),
        ('{"a": NaN}', 'NaN is no number'),
        ('{"a": ' + '9' * 10_000 + '}', 'damaged'),
        (' ' * (9 << 20), 'the limit is 8388608'),
        ('\ud800', 'damaged'),
    ],
    ids=['deep', 'deeper', 'deep_enough', 'inf', 'nan', 'digits', 'large', 'no_text'],
)
def test_json_that_means_harm_is_refused(tmp_path, content, says):
    path = tmp_path / 'config.json'
    path.write_bytes(content.encode('utf-8', 'surrogatepass'))
    with pytest.raises(ModelFileError, match=says):
        read_json_file(path)


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (BOMB, 'more than 100000 values'),
        ('a: &a [*a]', 'nested more than 64 deep'),
        ('[' * 10_000, 'cannot be read as YAML'),
        ('a: !!python/object/apply:os.system [ls]', 'cannot be read as YAML'),
        ('? {a: b}\n: c', 'cannot be read as YAML'),
        ('a: 2001-99-99', 'cannot be read as YAML'),
        ('#' * (5 << 20), 'the limit is 262144'),
    ],
    ids=['aliases', 'itself', 'deep', 'code', 'key', 'date', 'large'],
)
def test_yaml_that_means_harm_is_refused(tmp_path, content, says):
    path = tmp_path / 'script.yaml'
    path.write_text(content)
    with pytest.raises(ModelFileError, match=says):
        read_yaml_file(path)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'zeros').symlink_to('/dev/zero')
    (tmp_path / 'self').symlink_to(tmp_path / 'self')
    for name in ('pipe', 'zeros', 'self', '.', 'absent', 'a\0b'):
        for read in (lambda path: read_bounded(path, 99), lambda path: require_regular(path, 99)):
            with pytest.raises(ModelFileError):
                read(tmp_path / name)


def test_a_count_that_no_model_has_is_refused(tmp_path):
    (tmp_path / 'config.json').write_text(
        json.dumps({'hidden_size': 1 << 40, 'eos': [1] * 20_000})
    )
    config = ModelConfig(tmp_path).model
    with pytest.raises(ModelFileError, match='hidden_size is 1099511627776, expected a whole'):
        config.count('hidden_size')
    with pytest.raises(ModelFileError, match='expected a token id'):
        config.ids('eos')


def ask_all(config):
    for read in (
        lambda: config.model_type,
        lambda: config.family,
        lambda: config.language.count('max_position_embeddings'),
        lambda: config.language.find_count('hidden_size'),
        lambda: config.vision.find_count('image_size'),
        lambda: config.model.find_fraction('downsample_ratio'),
        lambda: config.model.three('image_mean'),
        lambda: config.model.ids('eos_token_id'),
    ):
        read()


def test_law_a_damaged_config_is_read_or_refused(tmp_path):
    messages = []
    for damaged in mutations(json.dumps(CONFIG).encode(), 400):
        (tmp_path / 'config.json').write_bytes(damaged)
        try:
            ask_all(ModelConfig(tmp_path))
        except ModelFileError as error:
            messages.append(error.message)
    assert all('config.json' in each and len(each) < 2000 for each in messages)
    assert len(messages) > 100
