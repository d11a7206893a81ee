"""The laws of all engines, on both ways to drive an Axera chip."""

import pytest
from support.engine_laws import broken_laws

pytestmark = pytest.mark.axera


def test_the_axera_engine_keeps_the_laws(open_set):
    engine = open_set('tiny', kv_slots=2)
    assert engine.limits.kv_slots == 2
    assert broken_laws(engine, rows=engine._vision.shapes.rows, except_for=frozenset()) == []


def test_without_being_asked_a_second_prompt_takes_no_chip_memory(open_set, backend):
    """On a board whose driver does not say what is free; host memory is there."""
    assert open_set('tiny').limits.kv_slots == (1 if backend == 'in_place' else 2)
