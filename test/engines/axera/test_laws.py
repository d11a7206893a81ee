"""The laws of all engines, on both ways to drive an Axera chip."""

import pytest
from support.engine_laws import broken_laws

pytestmark = pytest.mark.axera


def test_the_axera_engine_keeps_the_laws(open_set):
    engine = open_set('tiny')
    assert broken_laws(engine, rows=engine._vision.shapes.rows, except_for=frozenset()) == []
