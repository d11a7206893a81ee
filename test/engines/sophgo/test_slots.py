"""Slots of the KV cache: rows change places on the chip. That answers are right, the laws say."""

from __future__ import annotations

import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import DEAR_STEPS, GREEDY, model_files
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.core import DeviceError, text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.base import ChosenToken
from edge_vlm_ros.engines.sophgo.layers import CrossShapes, DecoderShapes, LayerKind
from edge_vlm_ros.engines.sophgo.nets import DType
from edge_vlm_ros.engines.sophgo.slots import offer_slots

STATIC, CROSS = 'internvl3_static_bf16_bm1684x', 'mllama_convert_bf16_bm1684x'
CHIP = 'bm1684x'
emulated = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(300)]


def shapes(*kinds, cross=None):
    return DecoderShapes(
        kinds=kinds,
        half=DType.BFLOAT16,
        hidden=64,
        kv_heads=2,
        head_dim=16,
        context=100,
        position_shape=(1, 32),
        capacities=(100,),
        cache_in_net=True,
        blocks_alias=False,
        cross=cross,
        deepstack=0,
    )


SELF = shapes(LayerKind.SELF, LayerKind.SELF)


@pytest.mark.parametrize(
    ('wanted', 'free', 'slots'),
    [
        (0, None, 1),
        (0, 2 * SELF.cache_bytes - 1, 1),
        (0, 2 * SELF.cache_bytes, 2),
        (3, None, 3),
        (1, 2 * SELF.cache_bytes, 1),
    ],
)
def test_a_second_one_is_offered_where_the_chip_has_room_to_spare(wanted, free, slots):
    assert SELF.cache_bytes == 2 * 2 * 2 * 100 * 2 * 16
    assert offer_slots(wanted, SELF, free) == slots


def test_a_model_with_cross_attention_has_one():
    attends = shapes(LayerKind.SELF, LayerKind.CROSS, cross=CrossShapes(4, 10, 16))
    assert offer_slots(2, attends, 1 << 40) == 1


def open_two(name, path):
    engine = open_engine(CHIP, model_files(FIXTURES[name], path), options={'kv_slots': 2})
    engine.plan_by(DEAR_STEPS)
    return engine


def append(engine, *words):
    at = engine.kv.length
    part = text_part(words, at)
    start = 0
    for piece in engine.plan_prefill(len(part)):
        engine.prefill(part.slice(start, start + piece), {})
        start += piece
    found = engine.next_token(GREEDY)
    return found.token if isinstance(found, ChosenToken) else int(found.values.argmax())


def memory_taken(name, path):
    """Return bytes in use with one slot, with two, after turning around and after the end."""
    from sophon import standin

    engine = open_two(name, path)
    append(engine, 1, 2, 3)
    found = [standin.live_device_bytes()]
    engine.select_kv(1)
    found.append(standin.live_device_bytes())
    append(engine, 4, 5)
    for slot in (0, 1, 0):
        engine.select_kv(slot)
    found.append(standin.live_device_bytes())
    needed = engine._parts.contract.decoder.cache_bytes
    engine.close()
    return [*found, standin.live_device_bytes()], needed


def where_memory_ends(name, path):
    """Return what is left of a slot that there is no memory for, and answers around that."""
    from sophon import standin

    engine = open_two(name, path)
    first = append(engine, 1, 2, 3)
    engine.kv.truncate(2)
    before, needed = standin.live_device_bytes(), engine._parts.contract.decoder.cache_bytes
    allocate, room = engine._runtime.allocate, iter(range(3))

    def until_full(shape, dtype):
        if next(room, None) is None:
            raise DeviceError('the device is full')
        return allocate(shape, dtype)

    engine._runtime.allocate = until_full
    with pytest.raises(DeviceError, match='the device is full'):
        engine.select_kv(1)
    left = (standin.live_device_bytes() - before) / needed
    del engine._runtime.allocate
    again = append(engine, 3)
    held = engine.kv.length
    engine.select_kv(1)
    other = append(engine, 1, 2, 3)
    engine.close()
    return left, (first, again, other), held


class TestMemory:
    pytestmark = emulated

    def test_it_is_taken_when_a_slot_is_first_selected_and_then_kept(self, bmodel):
        path = str(bmodel(STATIC))
        (one, two, turned, closed), needed = emulator.call(CHIP, memory_taken, STATIC, path)
        assert needed <= two - one < 2 * needed
        assert turned == two
        assert closed == 0

    def test_where_it_ends_the_first_slot_goes_on(self, bmodel):
        path = str(bmodel(STATIC))
        left, answers, held = emulator.call(CHIP, where_memory_ends, STATIC, path)
        assert left < 0.5, 'what was taken is given back, but for a place to copy over'
        assert len(set(answers)) == 1
        assert held == 3
