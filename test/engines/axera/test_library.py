"""The binding of the vendor's C library, against the stub: memory, models, refusals."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.axera.axmodel_file import Axmodel, Group, Tensor, write_axmodel
from support.axera.stub.build import build_stub
from support.axera.stub.chip import stub_chip
from support.c_library import CompilerError

from edge_vlm_ros.core import DeviceError, ModelFileError
from edge_vlm_ros.engines.axera import library as binding
from edge_vlm_ros.engines.axera.library import Library
from edge_vlm_ros.engines.axera.memory import Block
from edge_vlm_ros.engines.axera.model import Binding, Model

pytestmark = pytest.mark.axera

ROOT = Path(__file__).parents[3]
FIND_AGAIN = """
from edge_vlm_ros.engines.axera.library import Library
from support.axera.stub.chip import stub_chip
with stub_chip():
    assert Library().chip == 'ax650'
"""


@pytest.fixture
def chip():
    with stub_chip() as opened:
        yield opened


@pytest.fixture
def two_groups(tmp_path):
    groups = tuple(
        Group((Tensor(f'input{end}', 'f32', (1, 4)),), (Tensor(f'output{end}', 'f32', (1, 2)),))
        for end in ('', '_1')
    )
    return write_axmodel(tmp_path / 'two.axmodel', Axmodel('layer', 'ax650', groups))


class TestLibrary:
    def test_structures_have_the_sizes_of_the_vendors_headers(self):
        sizes = {'NpuAttr': 36, 'HandleExtra': 48, 'IoMeta': 128, 'IoInfo': 128, 'IoBuffer': 128}
        assert {n: ctypes.sizeof(getattr(binding, n)) for n in sizes} == sizes
        assert ctypes.sizeof(binding.Io) >= 120  # newer headers have it longer; zero = off

    @pytest.mark.parametrize('name', ['ax650', 'ax630c'])
    def test_chips_are_told_apart_by_their_functions(self, name):
        with stub_chip(name) as (_, library):
            assert library.chip == name

    def test_a_library_nobody_initialised_is_refused(self):
        with pytest.raises(DeviceError, match='open an axengine session first'):
            Library(build_stub())

    def test_a_missing_library_is_named(self, tmp_path):
        with pytest.raises(DeviceError, match=r'libax_engine\.so cannot be loaded'):
            Library(tmp_path)

    def test_the_copy_that_the_process_uses_is_found_again(self):
        # A second copy would not be initialised. In a process with no other stub in it.
        done = subprocess.run(
            [sys.executable, '-c', FIND_AGAIN], cwd=ROOT / 'test', timeout=60, check=False
        )
        assert done.returncode == 0

    def test_a_library_without_a_function_is_refused(self, tmp_path):
        for name in (binding.ENGINE_NAME, binding.SYS_NAME):
            (tmp_path / name).symlink_to(_some_other_library())
        with pytest.raises(DeviceError, match='the board SDK is too old'):
            Library(tmp_path)

    def test_an_error_names_function_and_code(self, chip):
        _, library = chip
        with pytest.raises(DeviceError, match=r'AX_SYS_MemFree failed with code -\d+ \(0xf'):
            library.call('AX_SYS_MemFree', 1, None)


class TestBlock:
    def test_the_chip_sees_only_what_was_flushed_in_whole_lines(self, chip):
        stub, library = chip
        block = Block(library, 256, 'test')
        block.bytes[:] = 7
        block.flush(70, 4)
        seen = stub.device_bytes(block.phy, 256)
        assert set(seen[64:128]) == {7}
        assert set(seen[:64]) == set(seen[128:]) == {0xFF}
        assert stub.count('bytes_flushed') == 64
        assert stub.count('partial_lines') == 0
        block.close()

    def test_we_see_only_what_was_invalidated(self, chip):
        stub, library = chip
        block = Block(library, 256, 'test')
        block.clear()
        stub.device_bytes(block.phy, 256)[:] = 9
        assert not block.bytes.any()
        block.invalidate(64, 1)
        assert set(block.bytes[64:128]) == {9}
        assert not block.bytes[:64].any()
        block.close()

    def test_a_flush_overwrites_what_the_chip_wrote_to_the_same_line(self, chip):
        stub, library = chip
        block = Block(library, 64, 'test')
        block.clear()
        stub.device_bytes(block.phy, 64)[:32] = 9
        block.flush(32, 32)
        assert not stub.device_bytes(block.phy, 64).any()
        block.close()

    def test_fresh_memory_is_not_a_number(self, chip):
        _, library = chip
        block = Block(library, 64, 'test')
        assert np.isnan(block.view(np.float32, 16)).all()
        block.close()

    def test_closing_twice_frees_once(self, chip):
        stub, library = chip
        block = Block(library, 64, 'test')
        block.close()
        block.close()
        assert stub.count('blocks_freed') == 1
        assert stub.count('refused') == 0

    def test_the_chips_memory_ends(self, chip):
        stub, library = chip
        stub.set(cmm_bytes=1000)
        with pytest.raises(DeviceError, match='no 1024 bytes of memory left for a cache'):
            Block(library, 1000, 'a cache')

    def test_a_second_free_is_refused_by_the_stub(self, chip):
        _, library = chip
        block = Block(library, 64, 'test')
        block.close()
        with pytest.raises(DeviceError, match='MemFree'):
            library.call('AX_SYS_MemFree', block.phy, block.vir)


class TestModel:
    def test_groups_are_read_with_their_names_bare(self, chip, two_groups):
        _, library = chip
        model = Model(library, two_groups)
        assert [group.inputs[0].name for group in model.groups] == ['input', 'input']
        assert model.groups[1].outputs[0].shape == (1, 2)
        assert model.groups[1].outputs[0].dtype == np.float32
        model.close()
        model.close()

    @pytest.mark.parametrize(
        ('content', 'why'),
        [
            (None, 'no such file'),
            (b'', 'cannot be read'),
            (b'PK and so on', 'damaged'),
            (b'AXSTUB 1\nkind layer\nchip ax650\ngroup 0\nin x bf16 1\n', 'damaged'),
            (b'AXSTUB 1\nkind layer\nchip ax630c\ngroup 0\nin x bf16 1\nend\n', 'another chip'),
            (b'AXSTUB 1\nkind layer\nchip any\ngroup 0\nin x bf16 1\nend\nrubbish', 'damaged'),
        ],
    )
    def test_a_file_that_is_no_model_is_named(self, chip, tmp_path, content, why):
        _, library = chip
        path = tmp_path / 'layer.axmodel'
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelFileError, match=rf'layer\.axmodel.*{why}'):
            Model(library, path)

    def test_a_tensor_without_memory_is_named(self, chip, two_groups):
        _, library = chip
        model = Model(library, two_groups)
        with pytest.raises(ModelFileError, match='tensor input of group 1 has 16 bytes'):
            Binding(model, 1, {})
        model.close()

    @pytest.mark.parametrize('fault', ['small', 'freed', 'inside', 'destroyed'])
    def test_the_stub_refuses_what_the_chip_would(self, chip, two_groups, fault):
        stub, library = chip
        model = Model(library, two_groups)
        taken, given = Block(library, 16, 'in'), Block(library, 8, 'out')
        bound = Binding(model, 0, {'input': taken, 'output': given})
        bound.run()
        if fault == 'small':
            bound.output('output').size = 4
        elif fault == 'freed':
            given.close()
        elif fault == 'inside':
            bound.output('output').phy += 128
        else:
            model.close()
        with pytest.raises(DeviceError, match=r'two\.axmodel: the run failed with code'):
            bound.run()
        assert stub.count('refused') == 1
        for owner in (given, taken, model):
            owner.close()


class TestBuild:
    def test_a_missing_compiler_names_the_package(self, tmp_path):
        with pytest.raises(CompilerError, match='apt-get install gcc'):
            build_stub(builds=tmp_path, compiler='no-such-compiler')

    def test_a_compiler_that_refuses_is_quoted(self, tmp_path):
        with pytest.raises(CompilerError, match='refused the sources'):
            build_stub(builds=tmp_path, compiler='false')

    def test_the_same_source_is_compiled_once(self):
        assert build_stub() == build_stub(compiler='no-such-compiler')


def _some_other_library():
    lines = Path('/proc/self/maps').read_text().splitlines()
    return next(line.split()[-1] for line in lines if '/libm.so' in line or '/libc.so' in line)
