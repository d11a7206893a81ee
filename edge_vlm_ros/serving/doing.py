"""Work items done, whatever goes wrong in them. The `ChipWorker`'s thread's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge_vlm_ros.core import Clock, EdgeVlmError, ErrorCode
from edge_vlm_ros.scheduling import (
    Decode,
    Encode,
    Failed,
    Outcome,
    Prefill,
    QuestionOwner,
    Work,
)
from edge_vlm_ros.serving.endings import known_error
from edge_vlm_ros.serving.step import REST, OnStep, Step

if TYPE_CHECKING:
    from edge_vlm_ros.engines.base import StopCheck
    from edge_vlm_ros.serving.ahead_desk import Wish
    from edge_vlm_ros.serving.model_steps import ModelSteps
    from edge_vlm_ros.serving.running import Running
    from edge_vlm_ros.serving.shown_frames import FrameGroup

_log = logging.getLogger(__name__)


class Doing:
    """Does one work item after the other, and tells of each; a failure is an outcome.

    Whatever: vendor libraries call `exit`, and a panic of native code (a tokenizer in Rust) is a
    `BaseException`. Nobody else can mean to stop this thread by one.

    Args:
        steps: The loaded model.
        clock: Steady time.
        on_work: See `ChipWorker`.
    """

    def __init__(self, steps: ModelSteps, clock: Clock, on_work: OnStep | None) -> None:
        self._steps = steps
        self._clock = clock
        self._on_work = on_work
        self._step = REST

    @property
    def is_rest(self) -> bool:
        """Whether the last that was told is that there is nothing to do."""
        return self._step.is_rest

    def rest(self) -> None:
        """Tell that there is nothing to do."""
        self._beat(REST)

    def beat(self) -> None:
        """Tell in the midst of a step that it is alive."""
        self._beat(self._step)

    def do(self, work: Work, running: Running, should_stop: StopCheck) -> Outcome:
        """Do one work item of a question; whatever goes wrong ends this question and no other."""
        started_ns = self._clock.now_ns()
        running.begin(started_ns)
        try:
            self._beat(self._steps.step_of(work))
            return self._steps.do(work, running, should_stop)
        except BaseException as error:  # noqa: BLE001 (said above)
            running.error = self._take_failure(work, error)
            return Failed()
        finally:
            running.spend(work, started_ns, self._clock.now_ns())

    def do_ahead(
        self, work: Work, subject: FrameGroup | Wish, should_stop: StopCheck
    ) -> Outcome | EdgeVlmError:
        """Do one work item that is no question's; return why it failed, if it did."""
        try:
            self._beat(self._steps.step_of(work))
            return self._steps.do_ahead(work, subject, should_stop)
        except BaseException as error:  # noqa: BLE001 (said above)
            return self._take_failure(work, error)

    def _take_failure(self, work: Work, error: BaseException) -> EdgeVlmError:
        """Log what nobody will be answered with; leave the KV cache in a known state."""
        known = known_error(error)
        if known.code is ErrorCode.INTERNAL:
            _log.error('%s failed', work, exc_info=error)
        elif not isinstance(work.owner, QuestionOwner):
            _log.warning('%s failed: %s', work, known.message)
        if isinstance(work, Encode | Prefill | Decode):
            self._steps.reset_kv()
        return known

    def _beat(self, step: Step) -> None:
        self._step = step
        if self._on_work is not None:
            self._on_work(step)  # Whoever asks is alive.
