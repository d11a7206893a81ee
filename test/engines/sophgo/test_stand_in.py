"""The stand-in for sophon.sail on the chip emulator: does what the binding does, refuses what it
or the chip refuses, counts what goes over the bus.

What the real binding does: sophon-sail 3.10.7, src/tensor.cpp and src/engine_llm.cpp.
"""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from support.environment import environment
from support.sophgo import emulator
from support.sophgo.check import check_fixture

pytestmark = pytest.mark.emulator

STATIC = {chip: f'internvl3_static_bf16_{chip}' for chip in emulator.CHIPS}
on_bm1684x = partial(emulator.call, 'bm1684x')


def raised(function, *arguments):
    """Return the name of the error that a call raises; '' when it returns."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001, which one is the question
        return type(error).__name__
    return ''


# -- files and devices --------------------------------------------------------------------------


def refusals_of_files(paths, old_device):
    from sophon import sail

    found = {name: raised(sail.EngineLLM, path, [0]) for name, path in paths.items()}
    good = next(iter(paths.values()))
    found['device'] = raised(sail.EngineLLM, good, [old_device])
    found['no device'] = raised(sail.EngineLLM, good, [])
    found['handle'] = raised(sail.Handle, old_device)
    return found


def test_a_file_that_the_runtime_cannot_load_raises_and_the_process_lives(bmodel, tmp_path):
    good = bmodel(STATIC['bm1684x']).read_bytes()
    contents = {
        'good': good,
        'half': good[: len(good) // 2],
        'most': good[: len(good) - 1000],
        'head': good[:100],
        'empty': b'',
        'no bmodel': bytes(10_000),
        'other chip': bmodel(STATIC['bm1688']).read_bytes(),
    }
    paths = {}
    for name, content in contents.items():
        path = tmp_path / f'{name}.bmodel'
        path.write_bytes(content)
        paths[name] = str(path)
    paths['missing'] = str(tmp_path / 'missing.bmodel')
    found = on_bm1684x(refusals_of_files, paths, 7)
    assert found.pop('good') == ''
    assert found.pop('device') == found.pop('handle') == 'SailDeviceError'
    assert set(found.values()) == {'SailEngineError'}, found


def test_without_the_libraries_the_import_fails(tmp_path):
    none = {'EDGE_VLM_EMULATOR_LIBS': str(tmp_path / 'no')}
    done = subprocess.run(
        [sys.executable, '-c', 'import sophon.sail'],
        env=environment(emulator.variables('bm1684x'), none),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'ImportError: libbmrt.so' in done.stderr


def memory_at_its_end(path):
    from sophon import sail, standin

    handle = sail.Handle(0)

    def take(elements):
        return sail.Tensor(handle, [elements], sail.Dtype.BM_UINT8, own_dev_data=True)

    kept = take(600_000)
    found = [raised(take, 600_000), raised(sail.EngineLLM, path, [0]), sail.get_dev_stat(0)[:2]]
    del kept
    return found, standin.live_device_bytes(), raised(take, 900_000)


def test_device_memory_has_an_end(bmodel):
    little = {'EDGE_VLM_EMULATOR_MEMORY': '1048576'}
    found, left, again = on_bm1684x(
        memory_at_its_end, str(bmodel(STATIC['bm1684x'])), changes=little
    )
    # sail's SailRuntimeError is not registered with Python: it arrives as RuntimeError.
    assert found == ['RuntimeError', 'SailEngineError', [1, 1]]
    assert left == 0
    assert again == ''


# -- tensors --------------------------------------------------------------------------------------


def tensors():
    from sophon import sail, standin

    handle = sail.Handle(0)
    host = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    a = sail.Tensor(handle, [2, 3, 4], sail.Dtype.BM_FLOAT32, own_dev_data=True)
    zeroed = a.asnumpy()
    a.update_data(host)
    view = sail.Tensor(a, [2, 4], 4)
    b = sail.Tensor(handle, [24], sail.Dtype.BM_FLOAT32, own_sys_data=True, own_dev_data=True)
    b.update_data(np.full(24, 7, np.float32))
    b.sync_s2d()
    b.sync_d2d(a, 4, 20, 4)
    before = b.asnumpy()
    b.sync_d2s()
    half = sail.Tensor(handle, [4], sail.Dtype.BM_BFLOAT16, own_dev_data=True)
    half.memory_set(1.0)
    one = sail.Tensor(handle, [1], sail.Dtype.BM_FLOAT32, own_sys_data=True)
    one.update_data(np.array([9], np.float32))
    a.sync_s2d(one, 0, 23, 1)
    got = sail.Tensor(handle, [2], sail.Dtype.BM_FLOAT32, own_sys_data=True)
    got.sync_d2s(a, 22, 0, 2)
    return {
        'zeroed': zeroed,
        'a': a.asnumpy(),
        'view': view.asnumpy(),
        'before': before,
        'b': b.asnumpy(),
        'half': half.asnumpy(),
        'got': got.asnumpy(),
        'facts': (a.shape(), a.size(), a.nbytes(), view.own_dev_data(), one.is_dev_data_valid()),
        'target': handle.get_target(),
        'counted': standin.counters().as_dict(),
    }


@pytest.mark.parametrize('chip', emulator.CHIPS)
def test_tensors_copy_what_and_where_they_are_told(chip):
    got = emulator.call(chip, tensors)
    host = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    host[1, 2, 3] = 9
    assert not got['zeroed'].any()
    np.testing.assert_array_equal(got['a'], host)
    np.testing.assert_array_equal(got['view'], host.reshape(-1)[4:12].reshape(2, 4))
    # Host memory stays as it was until it is synchronised.
    assert (got['before'] == 7).all()
    np.testing.assert_array_equal(got['b'][20:], host.reshape(-1)[4:8])
    assert (got['b'][:20] == 7).all()
    assert got['half'].dtype == np.uint16
    assert (got['half'] == 0x3F80).all()
    np.testing.assert_array_equal(got['got'], [22, 9])
    assert got['facts'] == ([2, 3, 4], 24, 96, False, False)
    assert got['target'] == chip.upper()
    counted = got['counted']
    assert counted['s2d'] == {'calls': 3, 'bytes': 96 + 96 + 4}
    assert counted['d2s'] == {'calls': 6, 'bytes': 96 + 96 + 8 + 96 + 32 + 8}
    assert counted['d2d'] == {'calls': 1, 'bytes': 16}
    assert counted['launches'] == {}


def refused_tensors():
    from sophon import sail

    handle = sail.Handle(0)
    kinds = sail.Dtype

    def new(shape, dtype):
        return sail.Tensor(handle, shape, dtype, own_dev_data=True)

    ids = new([1, 4], kinds.BM_INT32)
    half = new([1, 4], kinds.BM_BFLOAT16)
    floats = new([4], kinds.BM_FLOAT32)
    empty = sail.Tensor(handle, [4], kinds.BM_FLOAT32)
    good = np.zeros((1, 4), np.int32)
    freed = new([4], kinds.BM_FLOAT32)
    view = sail.Tensor(freed, [2], 0)
    del freed
    return {
        'int32': raised(ids.update_data, good),
        'int64': raised(ids.update_data, good.astype(np.int64)),
        'another shape': raised(ids.update_data, good[0]),
        'uint16': raised(half.update_data, good.astype(np.uint16)),
        'float16': raised(half.update_data, good.astype(np.float16)),
        'float64': raised(floats.update_data, np.zeros(4)),
        'no memory': raised(empty.asnumpy),
        'd2d types': raised(floats.sync_d2d, ids, 0, 0, 1),
        'd2d bounds': raised(floats.sync_d2d, floats, 2, 0, 3),
        's2d types': raised(floats.sync_s2d, ids, 0, 0, 1),
        's2d bounds': raised(floats.sync_s2d, floats, 0, 2, 3),
        'view bounds': raised(sail.Tensor, floats, [2], 3),
        'view copy': raised(partial(sail.Tensor, floats, [2], 0, no_copy=False)),
        'freed': raised(view.asnumpy),
    }


def test_tensors_refuse_what_the_binding_refuses():
    assert on_bm1684x(refused_tensors) == {
        'int32': '',
        'int64': 'SailTensorError',
        'another shape': 'SailTensorError',
        'uint16': '',
        'float16': 'SailTensorError',
        'float64': '',
        'no memory': 'SailTensorError',
        'd2d types': 'SailTensorError',
        'd2d bounds': 'SailTensorError',
        's2d types': 'DataTypeError',
        's2d bounds': 'MemoryError',
        'view bounds': 'SailTensorError',
        'view copy': 'SailTensorError',
        'freed': 'MisuseError',
    }


def as_the_oldest_release(path):
    from sophon import sail

    ids = sail.Tensor(sail.Handle(0), [1, 2], sail.Dtype.BM_INT32, own_dev_data=True)
    ids.update_data(np.array([[6, 0]], np.int64))
    bits = ids.asnumpy()
    ids.memory_set(0)
    with_flags = raised(sail.EngineLLM, path, 1, [0])
    return bits, ids.asnumpy().any(), hasattr(sail, 'BmrtFlag'), with_flags


def test_the_oldest_release_stores_wrong_bits_and_has_no_flags(bmodel):
    old = {'EDGE_VLM_SAIL_RELEASE': '3.9.1'}
    bits, is_set, has_flags, with_flags = on_bm1684x(
        as_the_oldest_release, str(bmodel(STATIC['bm1684x'])), changes=old
    )
    assert bits[0, 0] == 0x40C00000  # 6.0, not 6
    assert is_set
    assert not has_flags
    assert with_flags == 'TypeError'


# -- launches -------------------------------------------------------------------------------------


def launches(path):
    from sophon import sail, standin

    engine = sail.EngineLLM(path, sail.BmrtFlag.BM_RUNTIME_SHARE_MEM, [0])
    handle = sail.Handle(0)
    name = 'embedding_cache'
    inputs, outputs = engine.create_max_input_tensors(name), engine.create_max_output_tensors(name)
    inputs[0].update_data(np.array([[5]], np.int32))
    standin.reset()
    engine.process(name, inputs, outputs)
    row = outputs[0].asnumpy()
    counted = standin.counters().as_dict()
    wrong_type = {0: sail.Tensor(handle, [1, 1], sail.Dtype.BM_FLOAT32, own_dev_data=True)}
    too_large = {0: sail.Tensor(handle, [1, 2], sail.Dtype.BM_INT32, own_dev_data=True)}
    too_small = {0: sail.Tensor(handle, [1, 1, 64], sail.Dtype.BM_BFLOAT16, own_dev_data=True)}
    own = engine.get_input_tensors('block_cache_0')
    found = {
        'unknown net': raised(engine.process, 'block_99', inputs, outputs),
        'unknown index': raised(engine.get_input_shape, name, 3),
        'type': raised(engine.process, name, wrong_type, outputs),
        'elements': raised(engine.process, name, too_large, outputs),
        'room': raised(engine.process, name, inputs, too_small),
        'own of shared': engine.get_input_tensors(name),
        'own': sorted(own),
        'cache': own[3].shape(),
    }
    del engine
    found['own of closed'] = raised(own[3].asnumpy)
    del inputs, outputs, wrong_type, too_large, too_small
    return row, counted, found, standin.live_device_bytes(), standin.live_engines()


def test_a_launch_is_counted_and_bad_ones_are_refused(bmodel):
    row, counted, found, left, engines = on_bm1684x(launches, str(bmodel(STATIC['bm1684x'])))
    assert row.shape == (1, 1, 128)
    assert row.any()
    assert counted['launches'] == {'embedding_cache': 1}
    assert counted['d2s'] == {'calls': 1, 'bytes': 256}
    # The net is compiled for its own addresses: id and row were copied behind the caller's back.
    assert counted['launch_copies']['embedding_cache'] == {'calls': 2, 'bytes': 4 + 256}
    assert found == {
        'unknown net': 'IndexError',
        'unknown index': 'IndexError',
        'type': 'MisuseError',
        'elements': 'SailEngineError',
        'room': 'MisuseError',
        'own of shared': {},
        'own': [0, 1, 2, 3, 4],
        'cache': [1, 128, 2, 32],
        'own of closed': 'MisuseError',
    }
    assert left == 0
    assert engines == 0


def launch_on_tagged_addresses(path):
    from sophon import sail

    engine = sail.EngineLLM(path, sail.BmrtFlag.BM_RUNTIME_SHARE_MEM, [0])
    handle, kind = sail.Handle(0), sail.Dtype.BM_BFLOAT16
    symbol = engine.get_input_tensors_addrmode0('block_0')[3]
    inputs, outputs = (
        engine.create_max_input_tensors('block_0'),
        engine.create_max_output_tensors('block_0'),
    )
    rows, past = inputs[0].shape()[1], inputs[3].shape()[1]
    cache = sail.Tensor(handle, [1, past + rows, 2, 32], kind, own_dev_data=True)
    inputs[3] = sail.Tensor(cache, [1, past, 2, 32], 0)
    inputs[0].update_data(np.full((1, rows, 128), 0x3F80, np.uint16))
    engine.process('block_0', inputs, outputs)
    return (
        engine.get_addr_mode('block_0'),
        raised(symbol.asnumpy),
        bool(outputs[1].asnumpy().any()),
        bool(cache.asnumpy()[0, past:].any()),
    )


def test_in_address_mode_2_an_output_lands_behind_an_input(bmodel):
    """Why an engine must look at the address mode: nothing tells it that K went elsewhere."""
    path = str(bmodel('hazard_tagged_bm1688'))
    mode, symbol, in_output, behind_history = emulator.call(
        'bm1688', launch_on_tagged_addresses, path
    )
    assert mode == 2
    assert symbol == 'MisuseError'
    assert not in_output
    assert behind_history


def lacks_an_index(path):
    from sophon import sail

    engine = sail.EngineLLM(path, [0])
    engine.process('embedding_cache', {}, engine.create_max_output_tensors('embedding_cache'))


def test_a_missing_index_ends_the_process(bmodel):
    with pytest.raises(emulator.EmulatorDiedError, match='lacks index 0') as died:
        on_bm1684x(lacks_an_index, str(bmodel(STATIC['bm1684x'])))
    assert died.value.status < 0


def keeps_everything(path):
    from sophon import sail

    keeps_everything.kept = (
        sail.EngineLLM(path, [0]),
        sail.Tensor(sail.Handle(0), [10], sail.Dtype.BM_INT8, own_dev_data=True),
    )
    return os.getpid()


def test_what_is_left_open_at_the_end_is_given_back(bmodel):
    assert on_bm1684x(keeps_everything, str(bmodel(STATIC['bm1684x']))) != os.getpid()


@pytest.mark.slow
@pytest.mark.timeout(330)
@pytest.mark.parametrize('chip', emulator.CHIPS)
def test_a_whole_model_computes_what_the_float_reference_computes(chip, tmp_path):
    result = check_fixture(STATIC[chip], tmp_path)
    assert set(result['cosines']) >= {'vit', 'embedding', 'block_1', 'block_cache_1'}
    assert min(result['cosines'].values()) > 0.999
    assert len(result['tokens']) >= 2
    assert all(found == expected for found, expected in result['tokens'])


# -- the runner -----------------------------------------------------------------------------------


def fails(what):
    raise ValueError(what)


def never_ends():
    while True:
        pass


def test_an_error_of_the_called_function_arrives_here():
    with pytest.raises(ValueError, match='so it is') as error:
        on_bm1684x(fails, 'so it is')
    assert 'in fails' in str(error.value.__cause__)


def test_a_call_that_takes_too_long_is_ended():
    with pytest.raises(emulator.EmulatorTimeoutError, match='3 s'):
        emulator.call('bm1684x', never_ends, time_limit_s=3)


def calls_again():
    return on_bm1684x(fails, '')


def test_a_call_within_a_call_is_refused():
    with pytest.raises(emulator.EmulatorError, match='cannot make another'):
        on_bm1684x(calls_again)


def test_only_functions_that_another_process_can_find_are_called():
    with pytest.raises(TypeError, match='top level'):
        on_bm1684x(lambda: None)
