"""Finding axmodel sets: in the layouts that are published, and what is said of broken ones."""

import json

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.models import find_model
from edge_vlm_ros.models.axmodel_set import WantedSet, holds_axmodels, search_axmodel_set


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


def put_set(folder, layers=4, prefix='qwen2', chunk=128, table='npy'):
    names = [f'{prefix}_p{chunk}_l{i}_together.axmodel' for i in range(layers)]
    table_name = f'model.embed_tokens.weight.{table}'
    return put(folder, *names, f'{prefix}_post.axmodel', table_name)


# As the guides to these repositories list their files; layers, folders and names are theirs.
def put_internvl3_2b(root):
    put_set(root / 'internvl3_2b_axmodel', 28, table='bfloat16.bin')
    put(root, 'vit_axmodel/internvl3_2b_vit_slim.axmodel', 'config.json', 'infer.py')
    put_tokenizer(root / 'internvl3_2b_tokenizer')
    return root


def put_internvl3_1b(root):
    put(put_set(root / 'internvl3_1b_ax650', 24, table='bfloat16.bin'), 'internvl3_1b_vit.axmodel')
    put(root, 'config.json', 'post_config.json')
    put_tokenizer(root / 'internvl3_tokenizer')
    return root


def put_qwen2_5_vl(root, folder, layers, *visions):
    below = put_set(root / folder, layers, 'qwen2_5_vl', table='bfloat16.bin')
    put(below, *visions)
    put(root, 'config.json', 'post_config.json')
    put_tokenizer(root / 'tokenizer')
    return root


QWEN_3B = 'Qwen2.5-VL-3B-Instruct_vision'
QWEN_7B = 'Qwen2.5-VL-7B-Instruct_vision'


def put_qwen2_5_vl_3b(root):
    folder = 'Qwen2.5-VL-3B-Instruct-AX650-chunk_prefill_512'
    towers = (f'{QWEN_3B}_nchw448.axmodel', f'{QWEN_3B}_nhwc.axmodel')
    return put_qwen2_5_vl(root, folder, 36, *towers)


def put_qwen2_5_vl_3b_int4(root):
    folder = 'Qwen2.5-VL-3B-Instruct-AX650-c128_p1536-ctx2047-int4'
    return put_qwen2_5_vl(root, folder, 36, f'{QWEN_3B}_image_392.axmodel')


def put_qwen2_5_vl_7b(root):
    folder = 'Qwen2.5-VL-7B-Instruct-AX650-chunk_prefill_1280'
    return put_qwen2_5_vl(root, folder, 28, f'{QWEN_7B}.axmodel', f'{QWEN_7B}_video.axmodel')


VISION_2_5 = 'vit_intern_2_5_sim_space2depth_nhwc.axmodel'


def put_internvl2_5_1b(root):
    large = put_set(root / 'internvl2_5_1b_448_ax650', 24, chunk=320, table='bfloat16.bin')
    put(large, VISION_2_5)
    small = put_set(root / 'internvl2_5_1b_364_ax630c', 24, chunk=256, table='bfloat16.bin')
    put(small, 'internvl2_5_1b_vit_364.axmodel')
    put_tokenizer(root / 'tokenizer')
    return root


def put_internvl3_5_2b(root):
    put_set(root / 'InternVL3_5-2B_axmodel', 28, prefix='qwen3', table='bfloat16.bin')
    put(root / 'InternVL3_5-2B_axmodel', 'model.embed_tokens.weight.npy')
    put(root, 'vit-models/internvl_vit_model_1x3x448x448.axmodel', 'infer_axmodel.py')
    put_tokenizer(root / 'InternVL3_5-2B')
    return root


VISION_3_5 = 'internvl_vit_model_1x3x448x448.axmodel'

PUBLISHED = [
    ('ax650', 'internvl3.5-2b', put_internvl3_5_2b, 28, VISION_3_5),
    ('ax650', 'internvl3-2b', put_internvl3_2b, 28, 'internvl3_2b_vit_slim.axmodel'),
    ('ax650', 'internvl3-1b', put_internvl3_1b, 24, 'internvl3_1b_vit.axmodel'),
    ('ax650', 'internvl2.5-1b', put_internvl2_5_1b, 24, VISION_2_5),
    ('ax630c', 'internvl2.5-1b', put_internvl2_5_1b, 24, 'internvl2_5_1b_vit_364.axmodel'),
    ('ax650', 'qwen2.5-vl-3b', put_qwen2_5_vl_3b, 36, f'{QWEN_3B}_nchw448.axmodel'),
    ('ax650', 'qwen2.5-vl-3b-308', put_qwen2_5_vl_3b, 36, f'{QWEN_3B}_nhwc.axmodel'),
    ('ax650', 'qwen2.5-vl-3b-int4', put_qwen2_5_vl_3b_int4, 36, f'{QWEN_3B}_image_392.axmodel'),
    ('ax650', 'qwen2.5-vl-7b', put_qwen2_5_vl_7b, 28, f'{QWEN_7B}.axmodel'),
    ('ax650', 'qwen2.5-vl-7b-video', put_qwen2_5_vl_7b, 28, f'{QWEN_7B}_video.axmodel'),
]  # fmt: skip


@pytest.mark.parametrize(('chip', 'name', 'put_it', 'layers', 'vision'), PUBLISHED)
def test_published_sets_are_found_by_name(tmp_path, chip, name, put_it, layers, vision):  # noqa: PLR0913, PLR0917
    put_it(tmp_path / chip / name)
    found = find_model(chip, name, [tmp_path])
    assert sorted(found.weights) == sorted(
        [*(f'layers.{i}' for i in range(layers)), 'post', 'embed_tokens', 'vision_encoder']
    )
    assert found.weights['vision_encoder'].name == vision
    assert found.weights['layers.0'].parent == found.weights['post'].parent
    assert found.family == 'internvl'


@pytest.mark.parametrize('put_it', [put_internvl3_2b, put_internvl3_1b])
def test_published_repositories_are_found_by_path(tmp_path, put_it):
    found = find_model('ax650', str(put_it(tmp_path)))
    assert found.weights['embed_tokens'].name.endswith('.bfloat16.bin')
    assert found.tokenizer_folder.name.endswith('_tokenizer')
    assert found.folder == tmp_path


def test_the_sets_own_folder_may_be_named_with_the_rest_beside_it(tmp_path):
    put_internvl3_2b(tmp_path)
    found = find_model('ax650', str(tmp_path / 'internvl3_2b_axmodel'))
    assert found.weights['vision_encoder'].parent.name == 'vit_axmodel'
    assert found.tokenizer_folder == tmp_path / 'internvl3_2b_tokenizer'


@pytest.mark.parametrize(
    'name',
    [
        'vit_axmodel/internvl3_2b_vit_slim.axmodel',
        'vit-models/internvl_vit_model_1x3x448x448.axmodel',
        'vit-models/encoder.axmodel',
        'image_encoder.axmodel',
        'internvl3_Vision_part.axmodel',
    ],
)
def test_the_vision_tower_is_known_by_its_name_or_its_folder(tmp_path, name):
    put_tokenizer(put(put_set(tmp_path), name))
    assert find_model('ax650', str(tmp_path)).weights['vision_encoder'] == tmp_path / name


@pytest.mark.parametrize(
    ('chip', 'folder', 'vision'),
    [
        ('ax650', 'internvl2_5_1b_448_ax650', VISION_2_5),
        ('ax630c', 'internvl2_5_1b_364_ax630c', 'internvl2_5_1b_vit_364.axmodel'),
    ],
)
def test_of_sets_for_several_chips_each_chip_gets_its_own(tmp_path, chip, folder, vision):
    put_internvl2_5_1b(tmp_path)
    for named in (tmp_path, tmp_path / folder):
        found = find_model(chip, str(named))
        assert len(found.weights) == 27
        assert found.weights['layers.0'].parent == tmp_path / folder
        assert found.weights['vision_encoder'].name == vision
        assert found.tokenizer_folder == tmp_path / 'tokenizer'


def test_a_set_for_another_chip_is_taken_where_there_is_no_other(tmp_path):
    """The engine says what is wrong with it; the name may be, too."""
    put(put_tokenizer(put_set(tmp_path / 'x_ax630c', 4)), 'a_vit.axmodel')
    assert find_model('ax650', str(tmp_path)).weights['layers.0'].parent.name == 'x_ax630c'


def test_two_sets_below_one_folder_are_both_named(tmp_path):
    for name in ('first', 'second'):
        put(put_set(tmp_path / name, 4), 'a_vit.axmodel')
    put_tokenizer(tmp_path / 'tokenizer')
    with pytest.raises(ModelFileError, match=r'name one: first .*, second '):
        find_model('ax650', str(tmp_path))
    assert len(find_model('ax650', str(tmp_path / 'second')).weights) == 7


def test_of_builds_for_several_chunks_the_smallest_takes_the_longest_prompts(tmp_path):
    """InternVL3-2B.axera with its folders for chunks of 128 and for one prefill of 320."""
    put_tokenizer(put(tmp_path, 'vit_axmodel/internvl3_2b_vit_slim.axmodel') / 'tokenizer')
    for chunk in (320, 128):
        put_set(tmp_path / f'InternVL3-2B_axmodel_chunk_{chunk}', 28, chunk=chunk)
    found = find_model('ax650', str(tmp_path))
    assert found.weights['layers.0'].name == 'qwen2_p128_l0_together.axmodel'
    named = tmp_path / 'InternVL3-2B_axmodel_chunk_320'
    found = find_model('ax650', str(named))
    assert found.weights['layers.0'].name == 'qwen2_p320_l0_together.axmodel'


def test_of_two_sets_the_one_with_more_layers_counts(tmp_path):
    put_set(tmp_path / 'half', 2)
    put_set(tmp_path / 'whole', 4)
    weights = search_axmodel_set(put(tmp_path, 'a_vit.axmodel')).weights
    assert weights['layers.3'].parent == weights['post'].parent == tmp_path / 'whole'


def test_several_builds_in_one_folder_are_named(tmp_path):
    put_set(put_set(put_tokenizer(tmp_path), 4), 4, chunk=320)
    said = r'several builds in one folder.*: qwen2_p128 \(4 layers\), qwen2_p320 \(4 layers\)'
    with pytest.raises(ModelFileError, match=said):
        find_model('ax650', str(tmp_path))


def test_a_pattern_tells_builds_of_one_folder_apart(tmp_path):
    put(put_set(put_set(tmp_path, 4), 4, chunk=320), 'a_vit.axmodel')
    wanted = WantedSet('qwen2_p320_l{layer}_together.axmodel', 4)
    found = search_axmodel_set(tmp_path, wanted)
    assert not found.missing
    assert not found.conflicts
    assert found.weights['layers.0'].name == 'qwen2_p320_l0_together.axmodel'


def test_the_names_of_missing_files_are_given(tmp_path):
    put_tokenizer(put_set(tmp_path, 6))
    for name in ('qwen2_p128_l2_together.axmodel', 'qwen2_p128_l4_together.axmodel'):
        (tmp_path / name).unlink()
    (tmp_path / 'qwen2_post.axmodel').unlink()
    (tmp_path / 'model.embed_tokens.weight.npy').unlink()
    with pytest.raises(ModelFileError) as caught:
        find_model('ax650', str(tmp_path))
    assert caught.value.message == (
        f'{tmp_path}: missing qwen2_p128_l2_together.axmodel, qwen2_p128_l4_together.axmodel,'
        ' qwen2_post.axmodel, model.embed_tokens.weight.npy or'
        ' model.embed_tokens.weight.bfloat16.bin, *vit*.axmodel or image_encoder.axmodel'
        ' (the vision tower)'
    )


def test_missing_last_layers_are_seen_by_the_catalogues_count(tmp_path):
    put_internvl3_2b(tmp_path / 'internvl3-2b')
    last = tmp_path / 'internvl3-2b' / 'internvl3_2b_axmodel' / 'qwen2_p128_l27_together.axmodel'
    last.unlink()
    with pytest.raises(ModelFileError, match=r'missing qwen2_p128_l27_together\.axmodel\n'):
        find_model('ax650', 'internvl3-2b', [tmp_path])


def test_more_layers_than_the_model_has_are_refused(tmp_path):
    put_internvl3_2b(tmp_path / 'internvl3-1b')
    with pytest.raises(ModelFileError, match='holds layers 0 to 27, the model has 24'):
        find_model('ax650', 'internvl3-1b', [tmp_path])


def test_an_empty_folder_is_told_what_a_set_is(tmp_path):
    with pytest.raises(ModelFileError, match=r'missing <prefix>_p<chunk>_l<i>_together\.'):
        find_model('ax650', str(put_tokenizer(tmp_path)))
    assert not holds_axmodels(tmp_path)
    assert holds_axmodels(put_set(tmp_path))


def test_a_file_is_no_set(tmp_path):
    put_set(tmp_path)
    with pytest.raises(ModelFileError, match='a model for chip ax650 is a folder'):
        find_model('ax650', str(tmp_path / 'qwen2_post.axmodel'))


def test_a_set_without_texts_says_so(tmp_path):
    put(put_set(tmp_path), 'a_vit.axmodel')
    with pytest.raises(ModelFileError, match=r': missing config\.json and tokenizer\.json$'):
        find_model('ax650', str(tmp_path))


def test_a_catalogue_of_ones_own_names_the_vision_tower(tmp_path):
    folder = put_tokenizer(put_set(tmp_path / 'mine', 4))
    put(folder, 'old_vit.axmodel', 'new_vit.axmodel')
    put(tmp_path, 'elsewhere/tower.axmodel')
    for named in ('new_vit.axmodel', '../elsewhere/tower.axmodel'):
        entry = {
            'name': 'mine',
            'chip': 'ax650',
            'family': 'internvl',
            'files': {'vision_encoder': {'path': named}},
        }
        (tmp_path / 'catalogue.yaml').write_text(json.dumps({'models': [entry]}))
        found = find_model('ax650', 'mine', [tmp_path])
        assert found.weights['vision_encoder'] == folder / named
        assert len(found.weights) == 7


def test_hidden_folders_and_very_deep_ones_are_left_alone(tmp_path):
    put_set(tmp_path / '.cache' / 'huggingface')
    put_set(tmp_path / 'a' / 'b' / 'c' / 'd')
    assert not search_axmodel_set(tmp_path).weights


@pytest.mark.parametrize('prefix', ['qwen3', 'gemma3_text', 'qwen2_5_vl', 'llama'])
def test_any_prefix_will_do(tmp_path, prefix):
    put(put_set(tmp_path, 3, prefix), 'a_vit.axmodel')
    found = search_axmodel_set(tmp_path)
    assert found.weights['post'].name == f'{prefix}_post.axmodel'
    assert not found.missing
