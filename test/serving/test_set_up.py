"""A start that fails: what a person must mend is not tried again, all else is, up to a bound."""

from __future__ import annotations

import pytest

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.serving import EnginePhase, ModelSpec
from edge_vlm_ros.serving.process import ProcessSettings, launcher

BOUNDS = ProcessSettings(first_backoff_s=0.01, max_failed_starts=3)


def wrong(error):
    return f"""
from edge_vlm_ros.core import DeviceError, SetupError
from edge_vlm_ros.serving import loading
def open_engine(*args, **more):
    {error}
loading.open_engine = open_engine
main(int"""


def starts(asker):
    return [state.message for state in asker.states].count('loading the model')


@pytest.fixture
def ask_broken(ask_process, monkeypatch):
    def start(error):
        boot = launcher._BOOT.replace('main(int', wrong(error), 1)
        monkeypatch.setattr(launcher, '_BOOT', boot)
        return ask_process(BOUNDS)

    return start


@pytest.mark.parametrize(
    ('error', 'code', 'words'),
    [
        ("raise SetupError('no such device: 7')", ErrorCode.DEVICE, 'no such device: 7'),
        ('import vendors_own', ErrorCode.INTERNAL, "No module named 'vendors_own'"),
    ],
)
def test_a_wrong_set_up_is_not_tried_again(ask_broken, error, code, words):
    asker = ask_broken(error)
    asker.ask('Well?', 'a')
    state = asker.settled()
    assert (state.phase, state.error_code) == (EnginePhase.FAILED, code)
    assert words in state.message
    assert 'starts failed' not in state.message
    assert starts(asker) == 1
    assert words in asker.answer('a').message


@pytest.mark.parametrize(
    'error',
    [
        "raise DeviceError('the driver is busy')",
        "raise MemoryError('the driver is busy')",
        "raise KeyboardInterrupt('the driver is busy')",
    ],
)
def test_what_may_mend_itself_is_tried_again_and_given_up_in_the_end(ask_broken, error):
    asker = ask_broken(error)
    asker.ask('Well?', 'a')
    state = asker.settled()
    assert state.phase is EnginePhase.FAILED
    assert 'the driver is busy (3 starts failed)' in state.message
    assert starts(asker) == 3
    assert 'the driver is busy' in asker.answer('a').message


def test_devices_that_the_chip_cannot_have_are_a_wrong_set_up(ask_process):
    asker = ask_process(BOUNDS, spec=ModelSpec('cpu', 'demo', device_ids=(7,)))
    state = asker.settled()
    assert (state.phase, state.error_code) == (EnginePhase.FAILED, ErrorCode.DEVICE)
    assert 'not [7]' in state.message
    assert starts(asker) == 1
