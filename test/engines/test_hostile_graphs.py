"""ONNX files, tables and scripts that mean harm, or were damaged on their way."""

import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.mutations import mutations

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.axera.embedding import EmbeddingTable
from edge_vlm_ros.engines.cpu.external_data import check_external_data
from edge_vlm_ros.engines.cpu.graphs import TokenEmbedder
from edge_vlm_ros.engines.cpu.runtime import Graph
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models.shipped import SHIPPED_FOLDERS

ROUNDS = 200
DEMO = SHIPPED_FOLDERS['cpu', 'demo']
OUTSIDE = [
    '../secret', '../../etc/passwd', '/etc/passwd', 'a/../../secret', '..\\secret', 'C:/x', '',
    'linked/secret', 'pipe', 'zeros', 'absent', 'a\0b', '.',
]  # fmt: skip


def table(location, count=12):
    """Return a tensor whose values lie in another file."""
    tensor = TensorProto(name='table', data_type=TensorProto.FLOAT, dims=[count // 4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (('location', location), ('offset', '0'), ('length', str(4 * count))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def as_initializer(tensor):
    node = helper.make_node('Gather', ['table', 'input_ids'], ['inputs_embeds'])
    return model_of([node], [tensor])


def as_constant(tensor):
    nodes = [
        helper.make_node('Constant', [], ['table'], value=tensor),
        helper.make_node('Gather', ['table', 'input_ids'], ['inputs_embeds']),
    ]
    return model_of(nodes, [])


def in_a_branch(tensor):
    branch = helper.make_graph(
        [helper.make_node('Constant', [], ['chosen'], value=tensor)], 'branch', [],
        [helper.make_tensor_value_info('chosen', TensorProto.FLOAT, None)],
    )  # fmt: skip
    yes = helper.make_tensor('yes', TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node('If', ['yes'], ['table'], then_branch=branch, else_branch=branch),
        helper.make_node('Gather', ['table', 'input_ids'], ['inputs_embeds']),
    ]
    return model_of(nodes, [yes])


def in_a_function(tensor):
    function = helper.make_function(
        'mine', 'Table', [], ['made'],
        [helper.make_node('Constant', [], ['made'], value=tensor)],
        [helper.make_opsetid('', 17)],
    )  # fmt: skip
    nodes = [
        helper.make_node('Table', [], ['table'], domain='mine'),
        helper.make_node('Gather', ['table', 'input_ids'], ['inputs_embeds']),
    ]
    return model_of(nodes, [], [function])


def model_of(nodes, initializers, functions=()):
    ids = helper.make_tensor_value_info('input_ids', TensorProto.INT64, [1, 'n'])
    embeds = helper.make_tensor_value_info('inputs_embeds', TensorProto.FLOAT, [1, 'n', 4])
    graph = helper.make_graph(nodes, 'embed', [ids], [embeds], initializers)
    opsets = [helper.make_opsetid('', 17), helper.make_opsetid('mine', 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


FORMS = pytest.mark.parametrize('form', [as_initializer, as_constant, in_a_branch, in_a_function])


@pytest.fixture
def folder(tmp_path):
    """Give a model's folder beside a file that is none of its business."""
    (tmp_path / 'secret').write_bytes(np.ones(12, np.float32).tobytes())
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'linked').symlink_to(tmp_path)
    os.mkfifo(tmp_path / 'model' / 'pipe')
    (tmp_path / 'model' / 'zeros').symlink_to('/dev/zero')
    return tmp_path / 'model'


def put(folder, model):
    path = folder / 'embed_tokens.onnx'
    path.write_bytes(model.SerializeToString())
    return path


@FORMS
@pytest.mark.parametrize('location', OUTSIDE)
def test_weights_from_elsewhere_are_refused_wherever_they_are_named(folder, form, location):
    path = put(folder, form(table(location)))
    with pytest.raises(ModelFileError, match=r'embed_tokens\.onnx|no such file|no regular file'):
        check_external_data(path)
    with pytest.raises(ModelFileError):
        Graph(path, 1)


def test_a_key_that_comes_twice_hides_no_name(folder):
    (folder / 'beside.bin').write_bytes(bytes(48))
    tensor = table('../secret')
    tensor.external_data.add(key='location', value='beside.bin')
    with pytest.raises(ModelFileError, match=r"names a file '\.\./secret'"):
        check_external_data(put(folder, as_initializer(tensor)))


def test_weights_beside_the_file_and_below_it_are_read(folder):
    (folder / 'below').mkdir()
    for name in ('beside.onnx_data', 'below/weights.bin'):
        (folder / name).write_bytes(np.arange(12, dtype=np.float32).tobytes())
        embedder = TokenEmbedder(Graph(put(folder, as_initializer(table(name))), 1))
        assert embedder.run(np.array([2])).tolist() == [[[8, 9, 10, 11]]]


def test_the_shipped_graphs_name_no_other_file():
    for path in sorted((DEMO / 'onnx').iterdir()):
        check_external_data(path)


@pytest.mark.parametrize('form', [as_initializer, in_a_branch])
def test_law_a_damaged_graph_is_read_or_refused(folder, form):
    (folder / 'beside.bin').write_bytes(bytes(48))
    whole = form(table('beside.bin')).SerializeToString()
    path, refused = folder / 'embed_tokens.onnx', 0
    for damaged in mutations(whole, ROUNDS):
        path.write_bytes(damaged)
        try:
            Graph(path, 1)
        except ModelFileError:
            refused += 1
    assert refused > ROUNDS // 4


def test_graphs_nested_very_deep_are_refused(tmp_path):
    node = b''
    for _ in range(3000):
        # Of a model, inside out: an attribute's graph (6), its node (1), that one's attribute (5).
        for number in (6, 5, 1):
            node = onnx_field(number, node)
    (tmp_path / 'a.onnx').write_bytes(onnx_field(7, node))
    with pytest.raises(ModelFileError, match='nested more than 64 deep'):
        check_external_data(tmp_path / 'a.onnx')


def onnx_field(number, data):
    size, sizes = len(data), bytearray()
    while size > 0x7F:
        sizes.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *sizes, size]) + data


@pytest.mark.parametrize('suffix', ['npy', 'bin'])
def test_law_a_damaged_table_is_read_or_refused(tmp_path, suffix):
    path = tmp_path / f'table.{suffix}'
    if suffix == 'npy':
        np.save(path, np.zeros((9, 8), np.float32))
    else:
        path.write_bytes(bytes(9 * 8 * 2))
    messages = []
    for damaged in mutations(path.read_bytes()[:200], ROUNDS):
        path.write_bytes(damaged)
        try:
            EmbeddingTable(path, 8).look_up(np.array([0]))
        except ModelFileError as error:
            messages.append(error.message)
    assert all(path.name in message for message in messages)
    assert len(messages) > ROUNDS // 4


@pytest.mark.parametrize(
    'shape',
    ['(1 << 62, 8)', '(-1, 8)', '(10**400, 8)', '((((9,),),), 8)', '(9.5, 8)', '(True, 8)'],
)
def test_a_table_whose_header_lies_about_its_shape_is_refused(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path = tmp_path / 'table.npy'
    path.write_bytes(b'\x93NUMPY\1\0' + len(header).to_bytes(2, 'little') + header + bytes(64))
    with pytest.raises(ModelFileError, match=r'table\.npy'):
        EmbeddingTable(path, 8)


def test_a_table_that_is_an_archive_or_code_or_no_file_is_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.zeros((9, 8), np.float32))
    shutil.move(tmp_path / 'a.npz', tmp_path / 'a.npy')
    np.save(tmp_path / 'b.npy', np.array([{}], object), allow_pickle=True)
    os.mkfifo(tmp_path / 'c.npy')
    os.mkfifo(tmp_path / 'd.bin')
    for name in ('a.npy', 'b.npy', 'c.npy', 'd.bin'):
        with pytest.raises(ModelFileError, match=name):
            EmbeddingTable(tmp_path / name, 8)


SCRIPT = """
answers:
  - question: 'colou?r'
    answer: 'It is red. {question} {images}'
latency: {load_s: 0, prefill_history_s: {128: 0.12, 256: 0.2}, layers: 2}
limits: {context_tokens: 4096, prefill_chunk: 256, can_extend_prefix: true}
faults:
  - {at: decode, kind: error, token: 2, seconds: 3}
tokenizer: somewhere
"""


def test_law_a_damaged_script_is_read_or_refused(tmp_path):
    path, messages = tmp_path / 'script.yaml', []
    for damaged in mutations(SCRIPT.encode(), 2 * ROUNDS):
        path.write_bytes(damaged)
        try:
            Script.load(path)
        except ModelFileError as error:
            messages.append(error.message)
    assert all('script.yaml' in message for message in messages)
    assert len(messages) > ROUNDS // 4


def test_the_onnx_field_numbers_are_those_of_the_format():
    numbers = {
        (kind.name, field.name): field.number
        for kind in onnx.onnx_ml_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in kind.fields
        if field.message_type and field.message_type.name
        in {'TensorProto', 'GraphProto', 'NodeProto', 'AttributeProto', 'SparseTensorProto',
            'FunctionProto', 'TrainingInfoProto'}
    }  # fmt: skip
    from edge_vlm_ros.engines.cpu.external_data import _MESSAGES

    short = {'ModelProto': 'Model', 'TrainingInfoProto': 'Training', 'FunctionProto': 'Function',
             'GraphProto': 'Graph', 'NodeProto': 'Node', 'AttributeProto': 'Attribute',
             'SparseTensorProto': 'SparseTensor'}  # fmt: skip
    known = {(kind, number) for kind, inside in _MESSAGES.items() for number in inside}
    for (kind, name), number in numbers.items():
        if kind in short:
            assert (short[kind], number) in known, (kind, name)
