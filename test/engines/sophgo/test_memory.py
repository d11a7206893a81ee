"""What a model takes of a chip is known before it is loaded; what goes there is counted.

ASKED_FOR is what the vendor's runtime library asked its driver for when it loaded a file on the
emulator, with one scratch memory for all nets: a library before it (LD_PRELOAD) counted the calls
of `bm_malloc_*`. WITHOUT_THE_FLAG is the same without BmrtFlag, as before sophon-sail 3.9.4.
"""

from __future__ import annotations

import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import DEAR_STEPS, model_files
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.core import text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel
from edge_vlm_ros.engines.sophgo.prefill.history import ShownMask

emulated = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(300)]
OLD_HISTORY = 'internvl3_oldhistory_bf16_bm1684x'
ASKED_FOR = {
    'internvl2_bf16_bm1684x': 1_869_312,
    'internvl2_bf16_bm1688': 1_775_744,
    'internvl3_static_bf16_bm1684x': 1_981_824,
    'internvl3_static_bf16_bm1688': 2_006_272,
    'internvl3_dynamic_bf16_bm1684x': 2_480_128,
    'internvl3_history_bf16_bm1688': 2_326_656,
    'internvl3_history_sample_bf16_bm1684x': 2_707_968,
    'internvl3_oldhistory_bf16_bm1684x': 1_982_208,
    'internvl3_oldhistory_bf16_bm1688': 1_896_832,
    'qwen2vl_convert_bf16_bm1684x': 2_523_776,
    'qwen2vl_convert_bf16_bm1688': 2_581_376,
    'mllama_convert_bf16_bm1684x': 2_641_280,
    'qwen2_5vl_static_bf16_bm1684x': 2_505_728,
    'qwen2_5vl_history_bf16_bm1688': 2_844_128,
}
WITHOUT_THE_FLAG = {
    'internvl2_bf16_bm1688': 1_947_776,
    'internvl3_static_bf16_bm1688': 2_239_744,
}


@pytest.mark.parametrize('name', ASKED_FOR)
def test_what_loading_takes_is_known_from_the_file(bmodel, name):
    """Files for two cores, and builds whose decode nets have several stages, too."""
    found = read_bmodel(bmodel(name)).device_bytes
    assert found == pytest.approx(ASKED_FOR[name], rel=0.01)


@pytest.mark.parametrize('name', WITHOUT_THE_FLAG)
def test_without_one_scratch_for_all_nets_a_bm1688_takes_more(bmodel, name):
    found = read_bmodel(bmodel(name)).loaded_bytes(shares_scratch=False)
    assert found == pytest.approx(WITHOUT_THE_FLAG[name], rel=0.03)


def own_memory(name, path):
    """Return what the engine takes beside the file, and what its contract says it will."""
    from sophon import standin

    engine = open_engine(FIXTURES[name].chip, model_files(FIXTURES[name], path))
    found = standin.live_device_bytes(), engine._parts.contract.own_bytes
    engine.close()
    return found


@pytest.mark.parametrize(
    'name',
    [
        'internvl3_static_bf16_bm1684x',
        'internvl3_history_bf16_bm1688',
        OLD_HISTORY,
        'qwen2vl_convert_bf16_bm1684x',
        'mllama_convert_bf16_bm1684x',
        'qwen3vl_static_bf16_bm1684x',
        'qwen3vl_dynamic_bf16_bm1684x',
    ],
)
class TestOwn:
    pytestmark = emulated

    def test_the_engines_own_memory_is_known_the_towers_too(self, bmodel, name):
        path, chip = str(bmodel(name)), FIXTURES[name].chip
        taken, foreseen = emulator.call(chip, own_memory, name, path)
        assert taken == pytest.approx(foreseen, rel=0.03)


def test_only_rows_that_are_not_there_are_sent():
    shown = ShownMask()
    sent = []
    for held, tokens in ((0, 5), (0, 3), (0, 7), (4, 2), (4, 2), (0, 1)):
        sent.append(shown.lacking(held, tokens))
        shown.note(tokens)
    assert [(rows.start, rows.stop) for rows in sent if rows] == [(0, 5), (5, 7), (0, 2), (0, 1)]


def test_rows_of_a_copy_that_failed_are_sent_again():
    shown = ShownMask()
    shown.note(shown.lacking(0, 5).stop)
    assert shown.lacking(3, 2) == range(2)
    assert shown.lacking(3, 2) == range(2), 'nothing was noted'
    assert shown.lacking(0, 2) == range(2), 'rows of another history lie there now'


def sent_for_turns(path):
    """Return the bytes that cross to the chip for each piece of a conversation, and mask sizes."""
    from sophon import standin

    engine = open_engine('bm1684x', model_files(FIXTURES[OLD_HISTORY], path))
    engine.plan_by(DEAR_STEPS)
    sent = []
    for words in ((1, 2, 3, 4, 5), (6, 7, 8), (9, 10, 11)):
        part = text_part(words, engine.kv.length)
        standin.reset()
        engine.prefill(part, {})
        sent.append(standin.counters().as_dict()['s2d']['bytes'])
        if len(sent) == 2:
            engine.kv.truncate(5)
    form = engine._parts.contract.prefill
    engine.close()
    return sent, form.rows, form.history


class TestMaskRows:
    pytestmark = emulated

    def test_a_five_input_history_sends_the_mask_rows_of_its_new_tokens(self, bmodel):
        path = str(bmodel(OLD_HISTORY))
        sent, rows, history = emulator.call('bm1684x', sent_for_turns, path)
        row = 2 * (history + rows)
        others = [4 * rows + 4 * tokens for tokens in (5, 3, 3)]  # ids and positions, int32
        # The second turn stands after five tokens, and the third after the same five again.
        masks = [5 * row, 3 * row, 0]
        assert sent == [mask + other for mask, other in zip(masks, others, strict=True)]
        assert rows > 5, 'else all rows would be sent'
