"""The laws of all engines, on the emulator of a Sophgo chip."""

import pytest
from support.engine_laws import broken_laws
from support.sophgo import emulator
from support.sophgo.engine_runs import open_fixture

pytestmark = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(300)]

# Blocks of one size from an empty cache, blocks that go on after a history, and heads with scores.
BUILDS = (
    'internvl3_static_bf16_bm1684x',
    'internvl3_history_bf16_bm1688',
    'internvl3_sample_bf16_bm1684x',
)


def tried(name, path):
    engine = open_fixture(name, path)
    assert engine.limits.kv_slots == 2, 'there is room for them'
    rows = engine._parts.contract.tower.rows
    return broken_laws(engine, rows=rows, except_for=frozenset())


@pytest.mark.parametrize('name', BUILDS)
def test_the_sophgo_engine_keeps_the_laws(name, bmodel):
    chip = name.rpartition('_')[2]
    assert emulator.call(chip, tried, name, str(bmodel(name)), time_limit_s=250.0) == []
