"""Finding model files: where is looked, what is said when nothing is found."""

import json

import pytest

from edge_vlm_ros.core import BadRequestError, ModelFileError
from edge_vlm_ros.models import default_model_dirs, find_model, is_path
from edge_vlm_ros.models.by_path import ONNX_PARTS, chips_for, find_by_path
from edge_vlm_ros.models.tokenizer_folder import missing_tokenizer

BMODEL = 'internvl3-2b-awq_w4bf16_seq2048_bm1688_2core_20250716_105519.bmodel'


@pytest.fixture(autouse=True)
def no_models(tmp_path, monkeypatch):
    """Hide what this machine has in the usual places."""
    monkeypatch.delenv('EDGE_VLM_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"model_type": "internvl_chat"}' if name.endswith('.json') else '')
    return folder


def put_tokenizer(folder):
    return put(folder, 'config.json', 'tokenizer.json')


def put_onnx(folder, suffix=''):
    return put(put_tokenizer(folder), *(f'onnx/{part}{suffix}.onnx' for part in ONNX_PARTS))


def test_the_shipped_script_is_found_without_a_name():
    files = find_model('scripted')
    assert (files.name, files.chip, files.family) == ('scripted', 'scripted', 'internvl')
    assert files.weights['script'].is_file()
    assert (files.tokenizer_folder / 'tokenizer.json').is_file()


def test_folders_are_looked_in_in_their_order(tmp_path, monkeypatch):
    places = [tmp_path / name for name in ('given', 'first', 'second', 'data/edge_vlm_ros/models')]
    monkeypatch.setenv('EDGE_VLM_MODELS', f'{places[1]}:{places[2]}')
    assert default_model_dirs() == places[1:]
    for place in reversed(places):
        folder = put_tokenizer(put(place / 'internvl3-2b', BMODEL))
        found = find_model('bm1688', 'internvl3-2b', [places[0]])
        assert found.folder == found.tokenizer_folder == folder
        assert found.weights == {'model': folder / BMODEL}
        assert found.family == 'internvl'


def test_a_folder_of_the_chip_comes_before_one_of_the_name(tmp_path):
    put_tokenizer(put(tmp_path / 'internvl3-2b', BMODEL))
    assert find_model('bm1688', '', [tmp_path]).folder == tmp_path / 'internvl3-2b'
    put_tokenizer(put(tmp_path / 'bm1688' / 'internvl3-2b', BMODEL))
    assert find_model('bm1688', '', [tmp_path]).folder == tmp_path / 'bm1688' / 'internvl3-2b'


def test_one_name_may_hold_files_for_two_chips(tmp_path):
    other = BMODEL.replace('bm1688_2core_20250716_105519', 'bm1684x_1dev_20250716_105401')
    folder = put_tokenizer(put(tmp_path / 'internvl3-2b', BMODEL, other))
    for chip, name in (('bm1688', BMODEL), ('bm1684x', other)):
        assert find_model(chip, 'internvl3-2b', [tmp_path]).weights['model'] == folder / name


@pytest.mark.parametrize(
    'place', ['internvl3-2b/tokenizer', 'internvl3-2b/InternVL3-2B-AWQ', 'InternVL3-2B-AWQ']
)
def test_the_tokenizer_may_lie_elsewhere(tmp_path, place):
    put(tmp_path / 'internvl3-2b', BMODEL)
    put(tmp_path / place, 'config.json', 'vocab.json')
    assert find_model('bm1688', '', [tmp_path]).tokenizer_folder == tmp_path / place


def test_what_is_missing_is_said_with_the_places_and_the_commands(tmp_path):
    with pytest.raises(ModelFileError) as caught:
        find_model('bm1688', '', [tmp_path / 'models'])
    message = caught.value.message
    home = tmp_path / 'models' / 'bm1688' / 'internvl3-2b'
    assert f'missing {BMODEL}, config.json and tokenizer.json' in message
    assert str(tmp_path / 'data/edge_vlm_ros/models/internvl3-2b') in message
    assert f'dfss --url=open@sophgo.com:/ext_model_information/LLM/LLM-TPU/{BMODEL}' in message
    assert 'hf download OpenGVLab/InternVL3-2B-AWQ' in message
    assert f'mkdir -p {home}' in message
    assert 'edge-vlm models fetch internvl3-2b --chip bm1688' in message


def test_only_what_is_really_missing_is_named(tmp_path):
    put(tmp_path / 'internvl3-2b', BMODEL)
    with pytest.raises(ModelFileError) as caught:
        find_model('bm1688', '', [tmp_path])
    missing = caught.value.message.splitlines()[0]
    assert missing.endswith('missing config.json and tokenizer.json')
    assert f'--local-dir {tmp_path / "internvl3-2b" / "tokenizer"}' in caught.value.message


def put_axmodels(folder, layers=28):
    names = [f'qwen2_p128_l{i}_together.axmodel' for i in range(layers)]
    return put(folder, *names, 'qwen2_post.axmodel', 'model.embed_tokens.weight.npy')


def test_a_model_of_many_files_is_found_whole(tmp_path):
    folder = put_tokenizer(put(put_axmodels(tmp_path / 'internvl3-2b'), 'internvl3_vit.axmodel'))
    found = find_model('ax650', '', [tmp_path])
    assert len(found.weights) == 31
    assert found.weights['layers.27'] == folder / 'qwen2_p128_l27_together.axmodel'
    assert found.weights['vision_encoder'] == folder / 'internvl3_vit.axmodel'


def test_a_long_list_of_missing_files_is_cut(tmp_path):
    put_tokenizer(
        put(put_axmodels(tmp_path / 'internvl3-2b', 20), 'a_vit.axmodel', 'b_vit.axmodel')
    )
    with pytest.raises(ModelFileError) as caught:
        find_model('ax650', '', [tmp_path])
    first = caught.value.message.splitlines()[0]
    assert 'qwen2_p128_l20_together.axmodel' in first
    assert first.endswith('and 4 more')


def test_two_files_where_one_is_wanted_are_both_named(tmp_path):
    put_tokenizer(put(put_axmodels(tmp_path / 'internvl3-2b'), 'a_vit.axmodel', 'b_vit.axmodel'))
    with pytest.raises(ModelFileError, match=r'several files could be .*a_vit\.axmodel, .*b_vit'):
        find_model('ax650', '', [tmp_path])


# --- by path -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['./demo', '~/demo', '/demo', 'models/demo', '.'])
def test_a_name_with_a_slash_is_a_path(name):
    assert is_path(name)


def test_a_plain_name_is_no_path_even_where_a_folder_has_it(tmp_path, monkeypatch):
    put_onnx(tmp_path / 'internvl3-2b')
    monkeypatch.chdir(tmp_path)
    assert not is_path('internvl3-2b')
    with pytest.raises(ModelFileError, match='no model named'):
        find_model('cpu', 'internvl3-2b')


@pytest.mark.parametrize('place', ['onnx', '.'])
def test_an_onnx_model_is_found_by_path(tmp_path, place):
    folder = put(put_tokenizer(tmp_path), *(f'{place}/{part}.onnx' for part in ONNX_PARTS))
    files = find_model('cpu', str(folder))
    assert files.name == str(folder)
    assert files.family == 'internvl'
    assert files.weights == {part: folder / place / f'{part}.onnx' for part in ONNX_PARTS}


def test_the_plain_variant_is_taken_first_then_8_bit_then_the_rest(tmp_path):
    for suffix in ('_q4f16', '_fp16', '_q4', '_quantized', ''):
        put_onnx(tmp_path, suffix)
        found = find_model('cpu', str(tmp_path)).weights['decoder_model_merged']
        assert found.name == f'decoder_model_merged{suffix}.onnx'


def test_parts_may_come_in_different_variants(tmp_path):
    put(put_tokenizer(tmp_path), 'onnx/vision_encoder_fp16.onnx', 'onnx/embed_tokens.onnx')
    put(tmp_path, 'onnx/decoder_model_merged_q4.onnx')
    names = [path.name for path in find_model('cpu', str(tmp_path)).weights.values()]
    assert names == [
        'vision_encoder_fp16.onnx', 'embed_tokens.onnx', 'decoder_model_merged_q4.onnx'
    ]  # fmt: skip


def test_missing_parts_of_an_onnx_model_are_named(tmp_path):
    put_onnx(tmp_path)
    (tmp_path / 'onnx' / 'embed_tokens.onnx').unlink()
    (tmp_path / 'tokenizer.json').unlink()
    wanted = 'missing onnx/embed_tokens.onnx, config.json and tokenizer.json of'
    with pytest.raises(ModelFileError, match=wanted):
        find_model('cpu', str(tmp_path))


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match='none: no such file or folder'):
        find_model('cpu', str(tmp_path / 'none'))


def test_a_file_is_no_model_for_the_cpu(tmp_path):
    put_onnx(tmp_path)
    with pytest.raises(ModelFileError, match='is a folder, this is a file'):
        find_model('cpu', str(tmp_path / 'config.json'))


def test_a_bmodel_is_named_by_its_file_and_needs_its_tokenizer(tmp_path):
    path = put(tmp_path, 'my.bmodel') / 'my.bmodel'
    with pytest.raises(ModelFileError, match=r'missing config\.json and tokenizer.json'):
        find_model('bm1684x', str(path))
    put_tokenizer(tmp_path / 'tokenizer')
    files = find_model('bm1684x', str(path))
    assert files.weights == {'model': path}
    assert files.tokenizer_folder == tmp_path / 'tokenizer'


def test_a_script_names_its_tokenizer_or_takes_the_one_beside_it(tmp_path):
    script = tmp_path / 'slow.yaml'
    script.write_text('latency: {decode_s: 1}')
    shipped = find_model('scripted').tokenizer_folder
    assert find_model('scripted', str(script)).tokenizer_folder == shipped
    put_tokenizer(tmp_path)
    assert find_model('scripted', str(script)).tokenizer_folder == tmp_path
    put_tokenizer(tmp_path / 'other')
    script.write_text('tokenizer: other')
    assert find_model('scripted', str(script)).tokenizer_folder == tmp_path / 'other'
    script.write_text('tokenizer: none')
    with pytest.raises(ModelFileError, match=r'none .tokenizer of .*slow.yaml.: missing'):
        find_model('scripted', str(script))


def test_an_unknown_chip_is_refused_for_names_and_paths(tmp_path):
    for name in ('', 'demo', str(put_onnx(tmp_path))):
        with pytest.raises(BadRequestError, match="no chip 'tpu'"):
            find_model('tpu', name)


def test_no_path_is_taken_for_a_model_of_a_chip_that_is_not_there(tmp_path):
    put_tokenizer(put(tmp_path, 'my.bmodel'))
    with pytest.raises(BadRequestError, match="no chip 'rk3588'; chips are: cpu"):
        find_by_path('rk3588', str(tmp_path))


@pytest.mark.parametrize(
    ('files', 'chips'),
    [
        (['my.bmodel'], ('bm1684x', 'bm1688')),
        (['below/my.bmodel'], ('bm1684x', 'bm1688')),
        (['vit/a.axmodel'], ('ax650', 'ax630c')),
        (['onnx/decoder_model_merged.onnx'], ('cpu',)),
        (['script.yaml'], ('scripted',)),
        (['script.yaml', 'my.bmodel'], ('scripted', 'bm1684x', 'bm1688')),
        (['config.json'], ()),
    ],
)
def test_what_lies_in_a_folder_says_which_chips_it_may_be_for(tmp_path, files, chips):
    assert chips_for(put(tmp_path, *files)) == chips


@pytest.mark.parametrize(
    ('name', 'chips'),
    [
        ('my.bmodel', ('bm1684x', 'bm1688')),
        ('slow.yaml', ('scripted',)),
        ('a.onnx', ()),
        ('a.axmodel', ()),
    ],
)
def test_a_file_says_it_where_models_are_named_by_their_file(tmp_path, name, chips):
    assert chips_for(put(tmp_path, name) / name) == chips


def test_a_catalogue_in_a_model_folder_counts_the_first_folder_most(tmp_path):
    folders = [tmp_path / 'one', tmp_path / 'two']
    for folder in folders:
        put(put_tokenizer(folder / 'mine'), f'{folder.name}.bmodel')
        entry = {
            'name': 'mine',
            'chip': 'bm1688',
            'family': 'internvl',
            'files': {'model': {'path': f'{folder.name}.bmodel'}},
        }
        (folder / 'catalogue.yaml').write_text(json.dumps({'models': [entry]}))
    for order in (folders, folders[::-1]):
        assert find_model('bm1688', 'mine', order).folder == order[0] / 'mine'


def test_the_package_itself_is_the_last_place(tmp_path):
    mine = put(put_tokenizer(tmp_path / 'scripted' / 'scripted'), 'script.yaml')
    assert find_model('scripted', '', [tmp_path]).folder == mine
    assert find_model('scripted', '', []).folder != mine


@pytest.mark.parametrize('place', ['.', 'tokenizer', 'config', 'token_config', 'a_tokenizer'])
def test_the_only_bmodel_of_a_folder_is_taken_with_the_texts_beside_it(tmp_path, place):
    folder = put(tmp_path, 'my.bmodel')
    put_tokenizer(folder / place)
    files = find_model('bm1688', str(folder))
    assert files.weights == {'model': folder / 'my.bmodel'}
    assert files.tokenizer_folder == folder / place
    assert files.family == 'internvl'


def test_a_bmodel_may_lie_one_folder_below(tmp_path):
    put_tokenizer(put(tmp_path, 'BM1684X/my.bmodel') / 'config')
    files = find_model('bm1684x', str(tmp_path))
    assert files.weights == {'model': tmp_path / 'BM1684X' / 'my.bmodel'}
    assert files.tokenizer_folder == tmp_path / 'config'


def test_several_bmodels_or_none_are_refused(tmp_path):
    put_tokenizer(tmp_path)
    with pytest.raises(ModelFileError, match=r'missing a \.bmodel file'):
        find_model('bm1684x', str(tmp_path))
    put(tmp_path, 'b.bmodel', 'a.bmodel')
    with pytest.raises(ModelFileError, match=r'several .*: a\.bmodel, b\.bmodel'):
        find_model('bm1684x', str(tmp_path))
    with pytest.raises(ModelFileError, match=r'config\.json: a model for chip bm1684x is a'):
        find_model('bm1684x', str(tmp_path / 'config.json'))


def test_a_named_bmodel_may_lie_in_the_folder_that_its_zip_made(tmp_path):
    path = put(tmp_path, f'internvl3-2b/BM1688/{BMODEL}') / f'internvl3-2b/BM1688/{BMODEL}'
    put_tokenizer(tmp_path / 'internvl3-2b')
    assert find_model('bm1688', '', [tmp_path]).weights == {'model': path}


def test_a_model_of_ones_own_is_told_where_its_files_go(tmp_path):
    row = 'models: [{name: mine, chip: cpu, family: internvl, files: {a: {path: a.onnx}}}]'
    (tmp_path / 'catalogue.yaml').write_text(row)
    place = tmp_path / 'cpu' / 'mine'
    with pytest.raises(ModelFileError, match=rf'to get it:\n  copy its files into {place}'):
        find_model('cpu', 'mine', [tmp_path])


def test_a_tokenizer_below_its_config_is_told_with_the_cure(tmp_path):
    below = tmp_path / 'qwen_tokenizer'
    below.mkdir()
    (below / 'tokenizer.json').write_text('{}')
    (tmp_path / 'config.json').write_text('{}')
    told = missing_tokenizer(tmp_path)
    assert f'the tokenizer is in {below}, config.json in {tmp_path}: copy config.json' in told
    (tmp_path / 'config.json').unlink()
    assert missing_tokenizer(tmp_path) == 'config.json and tokenizer.json'
