"""What the model process says and becomes, in the node's log: each thing once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.nodes.loading_log import LoadingLog
from edge_vlm_ros.serving import EnginePhase

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from edge_vlm_ros.serving import EngineState
    from edge_vlm_ros.serving.process.printed import LogLine


class EngineLog:
    """Gives lines and states of a model process to a ROS logger.

    Args:
        logger: The node's.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._ros = logger
        self._loading = LoadingLog()
        self._is_stalled = False
        self._last_ready = ''
        self._outage = ''

    @property
    def level(self) -> int:
        """The least level that is logged, as a number of `logging`: ROS has the same ones."""
        return int(self._ros.get_effective_level())

    def on_line(self, line: LogLine) -> None:
        """Log what the process logged or printed; on any one thread.

        rclpy takes each place in the code for one level, so each has its own.
        """
        text = f'[model process] [{line.name}] {line.text}'
        if line.level < logging.INFO:
            self._ros.debug(text)
        elif line.level < logging.WARNING:
            self._ros.info(text)
        elif line.level < logging.ERROR:
            self._ros.warning(text)
        elif line.level < logging.CRITICAL:
            self._ros.error(text)
        else:
            self._ros.fatal(text)

    def on_state(self, state: EngineState) -> None:
        """Log what is worth a line; a failure is the node's to tell. The executor's thread."""
        was_stalled = self._is_stalled
        self._is_stalled = state.phase is EnginePhase.STALLED
        if self._is_stalled and not was_stalled:
            self._ros.warning(f'the engine has stalled: {state.message}')
        elif was_stalled and state.is_ready:
            self._ros.info('the engine gives signs of life again')
        elif state.is_ready:
            self._on_ready(state)
        elif state.loading is not None:
            if self._loading.is_worth_a_line(state.loading):
                self._ros.info(state.message)
        elif state.phase is EnginePhase.STARTING and state.error_code is not ErrorCode.NONE:
            self._ros.warning(f'the model process is started again: {state.message}')

    def _on_ready(self, state: EngineState) -> None:
        """Log who answers, and that no server does, or one does again."""
        info, standing = state.info, state.standing
        who = f'{info.model} on {info.chip}' if info is not None else ''
        if standing.outage and standing.outage != self._outage:
            spare = f'; {who} answers' if standing.is_spare else ''
            self._ros.warning(f'no server answers{spare}: {standing.outage}')
        elif self._outage and not standing.outage:
            self._ros.info(f'a server answers again: {who}')
        elif who != self._last_ready and not standing.outage:
            self._ros.info(f'ready: {who}')
        self._last_ready, self._outage = who, standing.outage
