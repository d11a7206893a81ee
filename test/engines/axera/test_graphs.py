"""Shape groups read by name and shape, and files that do not belong together."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.axera.graphs import (
    DecodeGroup,
    PrefillGroup,
    check_same,
    layer_tensors,
    read_stack,
)
from edge_vlm_ros.engines.axera.runtime import ShapeGroup, TensorInfo
from edge_vlm_ros.engines.axera.vision_shapes import read_vision

HIDDEN, KV, VOCAB = 24, 8, 50


@dataclass
class File:
    """A file whose groups are known."""

    path: Path
    groups: tuple


def layer_group(tokens, seen, *, suffix='', rows=1, hidden=HIDDEN):
    cache = (1, seen, KV) if seen else (1, 1, hidden)
    ins = [
        TensorInfo(f'K_cache{suffix}', cache, 'bfloat16'),
        TensorInfo(f'V_cache{suffix}', cache, 'bfloat16'),
        TensorInfo(f'indices{suffix}', (rows, tokens), 'uint32'),
        TensorInfo(f'input{suffix}', (1, tokens, hidden), 'bfloat16'),
        TensorInfo(f'mask{suffix}', (1, tokens, seen + tokens), 'bfloat16'),
    ]
    outs = [
        TensorInfo(f'K_cache_out{suffix}', (1, tokens, KV), 'bfloat16'),
        TensorInfo(f'V_cache_out{suffix}', (1, tokens, KV), 'bfloat16'),
        TensorInfo(f'output{suffix}', (1, tokens, hidden), 'bfloat16'),
    ]
    return ShapeGroup(tuple(ins), tuple(outs))


def layer(*groups, number=0):
    return File(Path(f'qwen2_p16_l{number}_together.axmodel'), groups)


def post(hidden=HIDDEN, **changes):
    scores = TensorInfo('output', (1, 1, VOCAB), 'bfloat16')
    group = ShapeGroup(
        (TensorInfo('input', (1, 1, hidden), 'bfloat16'),), (replace(scores, **changes),)
    )
    return File(Path('qwen2_post.axmodel'), (group,))


def vision(image=((1, 3, 28, 28), 'float32'), features=((1, 4, HIDDEN), 'float32')):
    group = ShapeGroup((TensorInfo('image', *image),), (TensorInfo('output', *features),))
    return File(Path('internvl_vit.axmodel'), (group,))


PLAIN = layer(layer_group(1, 99), layer_group(16, 0), layer_group(16, 16), layer_group(16, 32))


def test_groups_are_told_by_their_shapes():
    shapes = read_stack(PLAIN, 2, post())
    assert shapes.decode == (DecodeGroup(0, 99),)
    assert shapes.prefill == (
        PrefillGroup(1, 16, 0),
        PrefillGroup(2, 16, 16),
        PrefillGroup(3, 16, 32),
    )
    assert (shapes.layers, shapes.hidden, shapes.kv_width, shapes.vocab) == (2, HIDDEN, KV, VOCAB)
    assert (shapes.position_rows, shapes.capacity) == (1, 99)


def test_groups_in_any_order_with_gaps_and_several_for_decoding():
    groups = (
        layer_group(16, 96),
        layer_group(1, 49),
        layer_group(16, 0),
        layer_group(16, 32),
        layer_group(1, 199),
    )
    shapes = read_stack(layer(*groups), 1, post())
    assert [(g.index, g.history) for g in shapes.prefill] == [(2, 0), (3, 32), (0, 96)]
    assert [(g.index, g.capacity) for g in shapes.decode] == [(1, 49), (4, 199)]
    assert shapes.capacity == 199


def test_one_prefill_group_of_a_fixed_length():
    shapes = read_stack(layer(layer_group(1, 99), layer_group(40, 0)), 1, post())
    assert shapes.prefill == (PrefillGroup(1, 40, 0),)


def test_names_may_carry_the_group_and_stand_in_any_order():
    groups = [layer_group(1, 99), layer_group(16, 0, suffix='_1')]
    groups = [replace(group, inputs=group.inputs[::-1]) for group in groups]
    file = layer(*groups)
    assert read_stack(file, 1, post()).prefill == (PrefillGroup(1, 16, 0),)
    assert layer_tensors(file, 1).mask.name == 'mask_1'


def test_three_rows_of_positions():
    file = layer(layer_group(1, 99, rows=3), layer_group(16, 0, rows=3))
    shapes = read_stack(file, 1, post())
    assert (shapes.position_rows, shapes.step_rows, shapes.steps_words_only) == (3, 3, False)


def test_three_rows_of_positions_for_chunks_and_one_for_a_token():
    file = layer(layer_group(1, 99), layer_group(16, 0, rows=3), layer_group(16, 16, rows=3))
    shapes = read_stack(file, 1, post())
    assert (shapes.position_rows, shapes.step_rows, shapes.steps_words_only) == (3, 1, True)


@pytest.mark.parametrize(('decode', 'first', 'second'), [(3, 1, 1), (1, 3, 1), (2, 3, 3)])
def test_rows_of_positions_that_do_not_go_together_are_refused(decode, first, second):
    groups = ((1, 99, decode), (16, 0, first), (16, 16, second))
    file = layer(*(layer_group(tokens, seen, rows=rows) for tokens, seen, rows in groups))
    with pytest.raises(ModelFileError, match=r'indices.*rows'):
        read_stack(file, 1, post())


def changed(group, name, **changes):
    edit = [replace(t, **changes) if t.name == name else t for t in group.inputs]
    return replace(group, inputs=tuple(edit))


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('mask', {'shape': (1, 15, 32)}),
        ('K_cache', {'shape': (1, 16, KV + 1)}),
        ('indices', {'dtype': 'float32'}),
        ('input', {'dtype': 'float32'}),
        ('input', {'shape': (1, 16, HIDDEN + 2)}),
        ('indices', {'shape': (3, 16)}),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(name, changes):
    groups = list(PLAIN.groups)
    groups[2] = changed(groups[2], name, **changes)
    with pytest.raises(ModelFileError, match=rf'l0_together.axmodel: {name} of group 2'):
        read_stack(layer(*groups), 1, post())


def test_a_file_that_is_no_layer_is_refused():
    with pytest.raises(ModelFileError, match=r'expected a tensor K_cache, found image'):
        read_stack(vision(), 1, post())


def test_a_set_without_a_first_chunk_is_refused():
    with pytest.raises(ModelFileError, match='a group for the first chunk'):
        read_stack(layer(layer_group(1, 99), layer_group(16, 16)), 1, post())


def test_a_set_without_a_decode_group_is_refused():
    with pytest.raises(ModelFileError, match='groups for chunks and for one token'):
        read_stack(layer(layer_group(16, 0)), 1, post())


def test_a_head_of_another_model_is_refused():
    with pytest.raises(ModelFileError, match=rf'qwen2_post.axmodel: input: .*width {HIDDEN}'):
        read_stack(PLAIN, 1, post(hidden=HIDDEN + 2))


def test_a_layer_with_other_groups_is_refused_with_both_numbers():
    other = layer(*PLAIN.groups[:3], number=7)
    with pytest.raises(ModelFileError, match=r'l7_.*expected 4 as in qwen2_p16_l0.*found 3'):
        check_same(other, PLAIN)


def test_a_layer_with_other_sizes_is_refused_with_the_tensor():
    other = layer(*PLAIN.groups[:3], layer_group(16, 48), number=5)
    with pytest.raises(
        ModelFileError, match=r'l5_.*K_cache of group 3.*\[1, 32, 8\].*\[1, 48, 8\]'
    ):
        check_same(other, PLAIN)


def test_layers_of_one_build_are_the_same():
    check_same(layer(*PLAIN.groups, number=1), PLAIN)


@pytest.mark.parametrize(
    ('image', 'is_last', 'takes_bytes'),
    [
        (((1, 3, 28, 28), 'float32'), False, False),
        (((1, 28, 28, 3), 'uint8'), True, True),
        (((1, 3, 28, 28), 'uint8'), False, True),
    ],
)
def test_a_vision_tower_by_its_input(image, is_last, takes_bytes):
    shapes = read_vision(vision(image), HIDDEN)
    assert (shapes.tile_px, shapes.rows, shapes.width) == (28, 4, HIDDEN)
    assert (shapes.is_channels_last, shapes.takes_bytes) == (is_last, takes_bytes)


@pytest.mark.parametrize(('image', 'is_last'), [((1, 16, 392, 3), True), ((1, 16, 1176), False)])
def test_a_tower_for_patches_by_its_input(image, is_last):
    shapes = read_vision(vision((image, 'uint8'), ((4, HIDDEN), 'float32')), HIDDEN)
    assert (shapes.patches, shapes.patch_values, shapes.grid) == (16, 1176, (4, 4))
    assert (shapes.tile_px, shapes.rows, shapes.is_channels_last) == (0, 4, is_last)


@pytest.mark.parametrize(
    'image', [(1, 24, 392, 3), (1, 9, 392, 3), (1, 64, 392, 3), (2, 16, 1176)]
)
def test_patches_of_no_square_grid_are_no_vision_model(image):
    file = vision((image, 'uint8'), ((4, HIDDEN), 'float32'))
    with pytest.raises(ModelFileError, match='no vision model'):
        read_vision(file, HIDDEN)


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        (vision(features=((1, 4, 96), 'float32')), rf"width {HIDDEN}.*96.*another model's"),
        (vision(image=((1, 3, 28, 30), 'float32')), 'no vision model'),
        (vision(image=((1, 4, 28, 28), 'float32')), 'no vision model'),
        (vision(image=((1, 3, 28, 28), 'int16')), 'float32 or uint8, found int16'),
        (post(), 'no vision model'),
        (PLAIN, 'no vision model'),
    ],
)
def test_a_wrong_vision_file_is_refused(file, message):
    with pytest.raises(ModelFileError, match=message):
        read_vision(file, HIDDEN)
