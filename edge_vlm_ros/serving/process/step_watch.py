"""How long a model process may be silent, and what its silence means: no thread, no clock.

Each step of work is announced (`Step`) before it begins. A step that cannot be interrupted gives
no further sign; how long it takes was measured when the model was loaded (`StageCosts`), and the
step says by how much it is larger. Three times follow from that, of which each grows with what the
step is expected to take:

* silence that is *told* (state `stalled`): something is wrong, or the machine is very busy;
* silence after which the process is *ended*, when the question of the step is over (cancelled, out
  of time): nobody waits for its result, the others wait for the chip;
* silence after which it is ended in any case.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.serving.model_info import ChipModelInfo, ModelInfo, StageCosts
from edge_vlm_ros.serving.step import REST, Step

UNMEASURED_S = 3.0
"""What a step of a backend is expected to take that measured nothing: a server, say."""

LEAST_PREPARE_S = 0.1
"""The warm-up's frame is tiny; a camera's takes longer to decode, on a slow core so long."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much silence is allowed: the larger of a floor and a factor times what is expected.

    Attributes:
        floor_s: Never less.
        factor: Times the step's expected time.
    """

    floor_s: float
    factor: float

    def seconds(self, expected_s: float) -> float:
        """Return the allowance for a step that is expected to take so long."""
        return max(self.floor_s, self.factor * expected_s)


TOLD = Allowance(1.0, 2.0)
"""With the parent's own tick, state and diagnostics say it well within 2 s."""

LET_GO = Allowance(5.0, 5.0)
STALLED = Allowance(20.0, 10.0)


@dataclass(slots=True)
class StepWatch:
    """What is known of the work of a model process that is ready. The supervising thread alone.

    Attributes:
        info: The model, with the costs that were measured.
        heard_ns: Steady time of the last sign of life.
        stall_s: Silence after which the process is ended, whatever was measured; 0 = from that.
        step: What is under way.
        ended_ns: Steady time when the question of the step got its final chunk; 0 = not yet.
    """

    info: ModelInfo | None
    heard_ns: int
    stall_s: float = 0.0
    step: Step = field(default=REST)
    ended_ns: int = 0

    def hear(self, now_ns: int, step: Step | None = None) -> None:
        """Take note of a sign of life; None = the same step goes on."""
        self.heard_ns = now_ns
        if step is None or step == self.step:
            return
        if step.request_id != self.step.request_id:
            self.ended_ns = 0
        self.step = step

    def hear_final(self, request_id: str, now_ns: int) -> None:
        """Take note of a final chunk; where its question is under way, nobody waits any more.

        No sign of life: a question is cancelled while the chip hangs, too.
        """
        if request_id == self.step.request_id:
            self.ended_ns = self.ended_ns or now_ns

    def silence_s(self, now_ns: int, since_ns: int) -> float:
        """Return for how long there was work and no sign of life.

        Args:
            now_ns: Steady time.
            since_ns: Since when there is a question that is not over; 0 = there is none.
        """
        if not self.step.is_rest:
            return (now_ns - self.heard_ns) / NS_PER_S
        return (now_ns - max(self.heard_ns, since_ns)) / NS_PER_S if since_ns else 0.0

    def is_told(self, silence_s: float) -> bool:
        """Whether this much silence is worth telling."""
        return silence_s > TOLD.seconds(self._expected_s())

    def verdict(self, now_ns: int, since_ns: int, over_ns: int) -> str:
        """Say why the process has to be ended, if it has; '' = it has not.

        Args:
            now_ns: Steady time.
            since_ns: As for `silence_s`.
            over_ns: Steady time when the question of the step was over, though the model process
                has not said so; 0 = it is not.
        """
        expected_s = self._expected_s()
        bound_s = self.stall_s or STALLED.seconds(expected_s)
        silence_s = self.silence_s(now_ns, since_ns)
        if silence_s > bound_s:
            return f'the chip did not finish a step within {bound_s:.3g} s ({self.step})'
        over_ns = self.ended_ns or over_ns
        if not over_ns or self.step.is_rest:
            return ''
        bound_s = min(bound_s, LET_GO.seconds(expected_s))
        if now_ns - max(self.heard_ns, over_ns) > bound_s * NS_PER_S:
            return f'the chip did not let an ended question go for {bound_s:.3g} s ({self.step})'
        return ''

    def _expected_s(self) -> float:
        if self.step.is_rest:
            return 0.0
        if not isinstance(self.info, ChipModelInfo):
            return UNMEASURED_S
        return self.step.scale * _measured_s(self.info.costs, self.step.stage)


def _measured_s(costs: StageCosts, stage: str) -> float:
    milliseconds = {
        'prepare': max(costs.prepare_ms, 1e3 * LEAST_PREPARE_S),
        'encode': costs.encode_ms,
        'prefill': costs.prefill_ms,
        'decode': costs.decode_ms,
    }
    # Of the other stages no cost is known; they are the host's, and short.
    return milliseconds.get(stage, 0.0) / 1e3
