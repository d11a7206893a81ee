"""However a process ends that uses the chip, what it held was given back before.

Before processes ended in order, SIGTERM and the parent's death left a model, ten buffers and the
device, and a load that was closed a model, two to ten buffers and the device.
"""

from __future__ import annotations

import pytest
from support import ends
from support.ledger import NOTHING
from support.sophgo import emulator
from support.sophgo.fixtures import FIXTURES

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing()),
]
DEMO = FIXTURES['demo_bf16_bm1684x']
LOADING = (
    ends.close_while_loading,
    ends.sigterm_while_loading,
    ends.parent_killed_while_loading,
)
READY = (ends.close_when_ready, ends.sigterm_when_ready, ends.parent_killed, ends.sigkill)


@pytest.fixture
def chip(tmp_path):
    from support.sophgo.ends import sophgo_chip

    return sophgo_chip(tmp_path, DEMO)


@pytest.mark.parametrize('end', LOADING, ids=lambda end: end.__name__)
def test_a_load_that_is_stopped_holds_nothing_at_its_end(chip, end):
    assert chip.left_by(end) == NOTHING


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize('end', READY, ids=lambda end: end.__name__)
def test_a_loaded_model_is_given_back_unless_its_process_is_killed(chip, end):
    left = chip.left_by(end)
    if end is ends.sigkill:
        assert left.handles == left.starts == 1
        assert left.blocks
    else:
        assert left == NOTHING
