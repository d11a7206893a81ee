"""A refusal names the model that the file is of, as far as its nets show."""

from dataclasses import replace

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel
from edge_vlm_ros.engines.sophgo.likely_model import likely_model
from edge_vlm_ros.engines.sophgo.model_files import contract_of
from edge_vlm_ros.engines.sophgo.nets import AddressMode, DType, NetInfo, TensorInfo

F32, I32 = DType.FLOAT32, DType.INT32
PATCHES = 64


def tower(inputs, outputs=1, name='vit'):
    """Make a vision tower's net of shapes and types."""
    rows = [((PATCHES // 4, 128), DType.BFLOAT16)] * outputs
    ins, outs = (
        tuple(TensorInfo(f't{i}', dtype, (shape,)) for i, (shape, dtype) in enumerate(tensors))
        for tensors in (inputs, rows)
    )
    mode = AddressMode.BASIC
    return {name: NetInfo(name, is_dynamic=False, address_mode=mode, inputs=ins, outputs=outs)}


def patches(width, *more):
    return [((PATCHES, width), F32), *more]


POSITIONS, MASK = ((PATCHES, 2), I32), ((1, 1, PATCHES, PATCHES), F32)
INDEX, WEIGHT = ((PATCHES, 4), I32), ((PATCHES, 4), F32)
PIXELS = ((1, 3, 14, 14336), F32)
TOWERS = {
    'Qwen2-VL': tower(patches(1176, POSITIONS, MASK)),
    'Qwen2.5-VL': tower(patches(1176, POSITIONS, MASK, MASK, ((PATCHES // 4,), I32))),
    'Qwen3-VL in a static build': tower(patches(1536, POSITIONS, INDEX, WEIGHT, MASK), 4),
    'Qwen3-VL in a dynamic build': tower(patches(1536, POSITIONS, INDEX, WEIGHT), 4),
    'Qwen3.5': tower(patches(1536, POSITIONS, INDEX, WEIGHT), 1),
    'MiniCPM-V 4': tower([PIXELS, ((1, 1024), I32), MASK, ((1, 1024), I32), MASK]),
    'MiniCPM-V 4.6': tower([PIXELS, MASK], name='vit_4x'),
    'InternVL': tower([((1, 3, 448, 448), F32)]),
    'Llama 3.2 Vision': tower([((4, 3, 560, 560), F32), ((1, 1), I32), ((1, 1, 4), I32)]),
}


@pytest.mark.parametrize('name', TOWERS)
def test_five_inputs_are_not_always_the_same_model(name):
    assert likely_model(TOWERS[name]) == name


@pytest.mark.parametrize('nets', [{}, tower([((7,), F32)]), tower(patches(99)), tower([])])
def test_what_nobody_knows_is_not_guessed(nets):
    assert likely_model(nets) == ''


@pytest.mark.parametrize('name', ['MiniCPM-V 4', 'Qwen3.5'])
def test_a_refused_file_names_the_model_that_it_is_of(bmodel, name):
    file = read_bmodel(bmodel('qwen2vl_convert_bf16_bm1684x'))
    foreign = replace(file, nets={**file.nets, **TOWERS[name]})
    with pytest.raises(ModelFileError) as caught:
        contract_of(foreign)
    assert caught.value.message.startswith(f'{file.path}: ')
    assert caught.value.message.endswith(f'(its nets look like those of {name})')
