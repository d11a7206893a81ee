"""The JSON files of a model's folder: found in each of their forms, and read once."""

from __future__ import annotations

import json

import pytest

from edge_vlm_ros.core import ModelConfig, ModelFileError, ModelFiles

# What transformers 5 saves for Llama 3.2 Vision in place of preprocessor_config.json.
PROCESSOR = {
    'image_processor': {
        'do_convert_rgb': True,
        'image_mean': [0.48145466, 0.4578275, 0.40821073],
        'image_processor_type': 'MllamaImageProcessor',
        'image_std': [0.26862954, 0.26130258, 0.27577711],
        'max_image_tiles': 4,
        'resample': 2,
        'size': {'height': 560, 'width': 560},
    },
    'processor_class': 'MllamaProcessor',
}
LEGACY = {'image_mean': [0, 0, 0], 'image_std': [1, 1, 1]}


@pytest.fixture
def folder(tmp_path):
    """Write JSON files: `folder(config={...}, preprocessor_config={...})`."""

    def make(**files):
        for name, content in files.items():
            (tmp_path / f'{name}.json').write_text(json.dumps(content), encoding='utf-8')
        return ModelConfig(tmp_path)

    return make


@pytest.mark.parametrize(
    ('config', 'hidden'),
    [
        ({'llm_config': {'hidden_size': 1}, 'hidden_size': 3}, 1),
        ({'text_config': {'hidden_size': 2}, 'hidden_size': 3}, 2),
        ({'llm_config': None, 'text_config': {}, 'hidden_size': 3}, 3),
    ],
)
def test_the_language_model_stands_in_one_of_three_places(folder, config, hidden):
    assert folder(config=config).language.count('hidden_size') == hidden


def test_the_preprocessor_stands_in_its_own_file_or_in_the_processors(folder):
    assert folder(processor_config=PROCESSOR).preprocessor.count('max_image_tiles') == 4
    config = folder(processor_config=PROCESSOR)
    assert config.has_preprocessor
    with pytest.raises(ModelFileError, match=r'processor_config\.json: image_processor\.max is'):
        raise config.preprocessor.error('max', 'a number')
    # Where both have it the newer one counts, as in transformers.
    both = folder(processor_config=PROCESSOR, preprocessor_config=LEGACY)
    assert both.preprocessor.three('image_mean')[0] == 0.48145466
    # An older processor_config.json has no such object.
    old = folder(processor_config={'processor_class': 'X'}, preprocessor_config=LEGACY)
    assert old.preprocessor.three('image_mean') == (0.0, 0.0, 0.0)


def test_a_folder_without_any_preprocessor_names_the_file_that_is_missing(folder):
    config = folder(config={})
    assert not config.has_preprocessor
    with pytest.raises(ModelFileError, match=r'cannot read .*/preprocessor_config\.json: No such'):
        _ = config.preprocessor


def test_each_file_is_read_once(folder, tmp_path):
    config = folder(config={'model_type': 'mllama'}, preprocessor_config=LEGACY)
    first = (config.model, config.language, config.generation, config.preprocessor)
    for path in tmp_path.iterdir():
        path.unlink()
    again = (config.model, config.language, config.generation, config.preprocessor)
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert config.family == 'mllama'


def test_a_model_hands_out_one_reader_of_its_files(tmp_path):
    files = ModelFiles('mine', 'cpu', tmp_path, tmp_path)
    assert files.config is files.config
    assert files.config.folder == tmp_path


@pytest.mark.parametrize('content', [None, '{', '[]', '{}', '{"model_type": "llava"}'])
def test_a_model_may_be_listed_whatever_its_config_says(tmp_path, content):
    if content is not None:
        (tmp_path / 'config.json').write_text(content)
    assert ModelFiles('mine', 'cpu', tmp_path, tmp_path).family == ''


def test_numbers_may_be_missing_but_not_of_another_kind(folder):
    model = folder(config={'a': 3, 'b': None, 'c': 'x', 'd': [4, 4], 'e': True, 'f': 0.5}).model
    assert [model.find_count(key) for key in 'abd'] == [3, None, 4]
    assert (model.find_fraction('f'), model.find_fraction('none')) == (0.5, None)
    assert model.three('none', (1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    for key in 'ce':
        with pytest.raises(ModelFileError, match=f'config.json: {key} is .*, expected a whole'):
            model.find_count(key)
