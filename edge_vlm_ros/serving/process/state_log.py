"""Logs the states of a model process, where nobody else hears of them."""

from __future__ import annotations

import logging

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.serving.process.messages import EnginePhase, EngineState

_log = logging.getLogger(__name__)


def log_state(state: EngineState) -> None:
    """Log a state where nobody else hears of it."""
    level = logging.DEBUG
    if state.phase is EnginePhase.FAILED:
        level = logging.ERROR
    elif state.error_code is not ErrorCode.NONE or state.phase is EnginePhase.STALLED:
        level = logging.WARNING
    _log.log(level, 'the model process: %s: %s', state.phase.value, state.message)
