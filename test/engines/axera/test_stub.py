"""The stub refuses what the chip refuses, counts, waits, and misbehaves when it is told to."""

import ctypes
import time
from contextlib import ExitStack

import numpy as np
import pytest
from support.axera.axmodel_file import Axmodel, Group, Tensor, write_axmodel
from support.axera.stub.build import CHIPS, build_stub
from support.axera.stub.chip import stub_chip
from support.axera.stub.compute import Stub

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.engines.axera.library import Library, NpuAttr
from edge_vlm_ros.engines.axera.memory import Block
from edge_vlm_ros.engines.axera.model import Binding, Model

pytestmark = pytest.mark.axera

IN, OUT = Tensor('input', 'f32', (1, 64)), Tensor('output', 'f32', (1, 32))


@pytest.fixture
def chip():
    with stub_chip() as opened:
        yield opened


@pytest.fixture
def write(tmp_path):
    def written(*delays_us, name='model'):
        groups = tuple(Group((IN,), (OUT,), delay) for delay in delays_us)
        return write_axmodel(tmp_path / f'{name}.axmodel', Axmodel('layer', 'any', groups))

    return written


@pytest.fixture
def bind(chip):
    """Open a model, and blocks as large as two of its tensors."""
    with ExitStack() as closing:

        def bound(path, group=0):
            model = Model(chip[1], path)
            closing.callback(model.close)
            blocks = [Block(chip[1], 512, name) for name in ('input', 'output')]
            for block in blocks:
                closing.callback(block.close)
            names = dict(zip(('input', 'output'), blocks, strict=True))
            return Binding(model, group, names), model, blocks

        yield bound


class TestOrder:
    def test_nothing_works_before_init(self, write):
        stub = Stub(build_stub())
        address, pointer = ctypes.c_uint64(), ctypes.c_void_p()
        content = write(0).read_bytes()
        sizes = (ctypes.byref(address), ctypes.byref(pointer), 64, 64, None)
        assert stub.library.AX_SYS_MemAllocCached(*sizes) < 0
        assert stub.library.AX_ENGINE_Init(ctypes.byref(NpuAttr())) < 0
        assert stub.library.AX_ENGINE_GetModelType(content, len(content), sizes[0]) < 0

    def test_what_comes_after_deinit_is_counted(self, write):
        owners = []

        def leave_behind():
            with stub_chip() as (_, library):
                owners.extend((Model(library, write(0)), Block(library, 64, 'late')))

        with pytest.raises(AssertionError, match='left behind'):
            leave_behind()
        model, block = owners
        with pytest.raises(DeviceError):
            block.close()
        model.close()
        stub = Stub(build_stub())
        assert stub.count('freed_after_deinit') == 1
        assert stub.count('destroyed_after_deinit') == 1
        free = stub.library.AX_SYS_MemFree
        assert stub.library.AX_SYS_Init() == 0
        assert free(ctypes.c_uint64(block.phy), ctypes.c_void_p(block.vir)) == 0
        assert stub.library.AX_SYS_Deinit() == 0

    def test_null_is_refused(self, chip):
        stub, _ = chip
        assert stub.library.AX_SYS_MemAllocCached(None, None, 64, 64, None) < 0
        assert stub.library.AX_ENGINE_CreateHandleV2(None, None, 0, None) < 0
        assert stub.library.AX_ENGINE_RunSyncV2(None, None, None) < 0
        assert stub.library.AX_ENGINE_DestroyHandle(None) < 0
        assert stub.count('refused') == 4


class TestRefusals:
    def test_flushing_past_a_block(self, chip):
        stub, library = chip
        block = Block(library, 128, 'short')
        for phy, vir, size in [
            (block.phy, block.vir, 256),
            (block.phy + 128, block.vir + 128, 64),
            (block.phy, block.vir + 64, 64),
        ]:
            with pytest.raises(DeviceError):
                library.call('AX_SYS_MflushCache', phy, vir, size)
        block.close()
        assert stub.count('bytes_flushed') == 0

    def test_a_group_that_is_not_there(self, bind, write):
        bound, model, _ = bind(write(0, 0))
        bound.run()
        for group in (2, 2**31):
            assert model.prepared(group, bound._io)() != 0

    def test_the_wrong_number_of_buffers(self, bind, write):
        bound, _, _ = bind(write(0))
        bound._io.input_count = 2
        with pytest.raises(DeviceError):
            bound.run()

    def test_the_context_of_another_model(self, bind, write):
        one, two = bind(write(0, name='one')), bind(write(0, name='two'))
        one[1]._context = two[1]._context
        assert one[1].prepared(0, one[0]._io)() != 0


class TestMisbehaviour:
    """Outputs move by 128 bytes between two runs of a model whose outputs are zeros."""

    def moved(self, stub, bound, block):
        bound.run()
        bound.output('output').phy += 128
        bound.output('output').vir += 128
        bound.run()
        return [not stub.device_bytes(block.phy + at, 128).any() for at in (0, 128)]

    def test_normally_a_run_follows_its_buffers(self, chip, bind, write):
        bound, _, (_, given) = bind(write(0))
        assert self.moved(chip[0], bound, given) == [True, True]

    @pytest.mark.parametrize('how', [1, 2])
    def test_latched_it_keeps_the_first_address(self, chip, bind, write, how):
        chip[0].set(latch=how)
        bound, _, (_, given) = bind(write(0))
        assert self.moved(chip[0], bound, given) == [True, False]

    def test_it_can_refuse_addresses_inside_a_block(self, chip, bind, write):
        chip[0].set(refuse_inside=1)
        bound, _, (_, given) = bind(write(0))
        with pytest.raises(DeviceError):
            self.moved(chip[0], bound, given)

    def test_it_can_refuse_memory_that_another_model_uses(self, chip, bind, write):
        chip[0].set(refuse_sharing=1)
        one, two = bind(write(0, name='one')), bind(write(0, name='two'))
        one[0].run()
        two[0].output('output').phy = one[0].output('output').phy
        two[0].output('output').vir = one[0].output('output').vir
        with pytest.raises(DeviceError):
            two[0].run()


class TestTime:
    def test_a_run_lasts_as_long_as_its_group_says(self, chip, bind, write):
        stub, _ = chip
        bound, _, _ = bind(write(1, 3000), group=1)
        stub.set(delays=1)
        start = time.monotonic()
        bound.run()
        assert time.monotonic() - start >= 0.003
        assert stub.count('delay_us') == 3000

    def test_time_can_be_counted_without_waiting_for_it(self, chip, bind, write):
        stub, _ = chip
        bound, _, _ = bind(write(3_600_000_000))
        stub.set(delays=2)
        bound.run()
        bound.run()
        assert stub.count('delay_us') == 7_200_000_000
        assert stub.count('overshoot_us') == 0

    def test_without_delays_it_does_not_wait(self, chip, bind, write):
        bound, _, _ = bind(write(60_000_000))
        bound.run()
        assert chip[0].count('delay_us') == 0


class TestHooks:
    def test_calls_are_counted_by_function(self, chip):
        stub, library = chip
        before = stub.count('AX_SYS_MflushCache')
        block = Block(library, 64, 'counted')
        block.clear()
        block.close()
        assert stub.count('AX_SYS_MflushCache') == before + 1
        assert stub.count('peak_bytes') == 128
        stub.reset_counts()
        assert stub.count('AX_SYS_MflushCache') == stub.count('peak_bytes') == 0

    def test_unknown_names_are_refused(self, chip):
        with pytest.raises(KeyError):
            chip[0].count('no such counter')
        with pytest.raises(KeyError):
            chip[0].set(no_such_option=1)
        with pytest.raises(KeyError):
            chip[0].device_bytes(64, 64)

    @pytest.mark.parametrize('name', CHIPS)
    def test_every_function_of_the_vendor_is_there(self, name):
        stub = Stub(build_stub(name))
        listed = [
            'SYS_Init', 'SYS_Deinit', 'SYS_MemAllocCached', 'SYS_MemFree', 'SYS_MflushCache',
            'SYS_MinvalidateCache', 'ENGINE_GetVersion', 'ENGINE_NPUReset', 'ENGINE_Init',
            'ENGINE_GetVNPUAttr', 'ENGINE_Deinit', 'ENGINE_GetModelType',
            'ENGINE_CreateHandleV2', 'ENGINE_DestroyHandle', 'ENGINE_GetIOInfo',
            'ENGINE_GetGroupIOInfoCount', 'ENGINE_GetGroupIOInfo', 'ENGINE_GetHandleModelType',
            'ENGINE_CreateContextV2', 'ENGINE_RunSyncV2', 'ENGINE_RunGroupIOSync',
            'ENGINE_SetAffinity', 'ENGINE_GetAffinity', 'ENGINE_GetCMMUsage',
            'ENGINE_GetModelToolsVersion',
        ]  # fmt: skip
        assert all(hasattr(stub.library, f'AX_{function}') for function in listed)
        assert hasattr(stub.library, 'AX_ENGINE_GetTotalOps') == (name == 'ax630c')

    def test_computing_that_fails_fails_the_run(self, chip, tmp_path, capfd):
        _, library = chip
        content = Axmodel('layer', 'any', (Group((IN,), (OUT,)),), {'no': np.zeros(1)})
        path = write_axmodel(tmp_path / 'odd.axmodel', content)
        with ExitStack() as closing:
            model = Model(library, path)
            closing.callback(model.close)
            blocks = {name: Block(library, 256, name) for name in ('input', 'output')}
            for block in blocks.values():
                closing.callback(block.close)
            with pytest.raises(DeviceError, match='failed'):
                Binding(model, 0, blocks).run()
        assert 'Error' in capfd.readouterr().err


def test_two_stubs_in_one_process_do_not_share_state():
    with stub_chip('ax650') as (one, library), stub_chip('ax630c') as (two, _):
        assert isinstance(library, Library)
        block = Block(library, 64, 'of the first')
        assert (one.count('blocks'), two.count('blocks')) == (1, 0)
        block.close()
