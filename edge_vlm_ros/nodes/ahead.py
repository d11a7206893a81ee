"""Work ahead of questions on the node: its timer, its hints, its reports, its faults.

`AheadPolicy` decides. Nothing that goes wrong here ends a question or the node: it is counted and
told in diagnostics, and the question goes its usual way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from rclpy.clock import (  # type: ignore[attr-defined] # Humble has ClockType nowhere else
    Clock,
    ClockType,
)

from edge_vlm_ros.core import NS_PER_S, NotReadyError, Readiness
from edge_vlm_ros.msg import Hint
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.ahead_policy import AheadPolicy
from edge_vlm_ros.nodes.temperature import TemperatureGate
from edge_vlm_ros.serving import ChipModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node

    from edge_vlm_ros.core import Answer
    from edge_vlm_ros.nodes.admission import Admitted, Feed
    from edge_vlm_ros.nodes.ahead_parameters import AheadSettings
    from edge_vlm_ros.nodes.executor_inbox import ExecutorInbox
    from edge_vlm_ros.nodes.node_time import Moment, NodeTime
    from edge_vlm_ros.nodes.request_parameters import RequestDefaults
    from edge_vlm_ros.serving import ModelInfo
    from edge_vlm_ros.serving.ahead import AheadReport, PreparesAhead

_T = TypeVar('_T')

CHECK_S = 0.2
"""How often the newest frames are looked at; not when they come: a camera's callback stores."""

SHARE_WINDOW = 60
"""Seconds over which the chip's share of work ahead is told."""

FAULT_NOTED_NS = 60 * NS_PER_S
"""For so long after a fault of its own diagnostics say what it was."""


@dataclass(frozen=True, slots=True)
class AheadFacts:
    """How work ahead of questions does, for diagnostics.

    Attributes:
        mode: 'encode' or 'prefill'.
        chip_share: Share of the last minute that the chip spent on it.
        refreshes: Frames taken because the scene had changed, or it was time.
        looks: How often a frame was looked at.
        encodes: Frames that went through the vision tower ahead.
        pieces: Pieces of prompts that went into the KV cache ahead.
        questions: About cameras, by how much was ready when they came.
        hints: How many came.
        restarts: How often a prefix did not go on from the one before it.
        failures: What could not be made ready, and faults on the node.
        ready: Cameras and stamps of the frames that are whole in the KV cache.
        tokens: Tokens of that prefix.
        problem: What keeps frames from being made ready; '' = nothing does.
    """

    mode: str
    chip_share: float
    refreshes: int
    looks: int
    encodes: int
    pieces: int
    questions: Mapping[Readiness, int]
    hints: int
    restarts: int
    failures: int
    ready: tuple[str, ...]
    tokens: int
    problem: str


class Ahead:
    """Makes the next question's frames ready while nobody asks. The executor's thread alone.

    Args:
        node: Whose timer and subscription.
        settings: What is made ready; its mode is not 'off'.
        feeds: Cameras by name.
        backend: Told what is wanted, from its start on.
        info: Says which model is loaded; None = none is yet.
        time: The node's clocks.
        inbox: Brings reports to the executor's thread.
        callback_group: Of timer and subscription.
        defaults: Reads what a request may leave open.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        node: Node,
        settings: AheadSettings,
        feeds: Mapping[str, Feed],
        backend: PreparesAhead,
        info: Callable[[], ModelInfo | None],
        *,
        time: NodeTime,
        inbox: ExecutorInbox,
        callback_group: CallbackGroup,
        defaults: Callable[[], RequestDefaults],
    ) -> None:
        self.policy = AheadPolicy(settings, feeds, backend, time.steady)
        self._node = node
        self._info = info
        self._time = time
        self._defaults = defaults
        self._gate = TemperatureGate(settings.max_temperature_c)
        self._busy: deque[tuple[int, float]] = deque(maxlen=SHARE_WINDOW)
        self._failures = self._failed_ns = 0
        self._problem = self._hint_problem = ''
        self._is_closed = False
        backend.listen_ahead(lambda report: inbox.put(partial(self._on_report, report)))
        self._timer = node.create_timer(
            CHECK_S,
            self.check,
            callback_group=callback_group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._hints = node.create_subscription(
            Hint, '~/hint', self._on_hint, qos.HINT, callback_group=callback_group
        )

    def check(self) -> None:
        """Look at the cameras' newest frames, and tell the backend what is wanted."""
        self._guarded(self._check, None)

    def choose(self, admitted: Admitted, now: Moment, *, has_turns: bool) -> Admitted:
        """Give a question what was made ready for it; see `AheadPolicy.choose`."""

        def choose() -> Admitted:
            return self.policy.choose(
                admitted, now, has_turns=has_turns, system_prompt=self._defaults().system_prompt
            )

        return self._guarded(choose, admitted)

    def answered(self, admitted: Admitted, answer: Answer) -> None:
        """Take note of how a question ended, and tell the backend what is wanted next."""

        def note() -> None:
            self.policy.drop_bad(answer.bad_frames)
            self.policy.answered(admitted, answer, self._time.steady.now_ns())
            self._check()

        self._guarded(note, None)

    def lose(self) -> None:
        """Take note that the model process is gone, and what was ready with it."""
        self._guarded(self.policy.lose, None)

    def forget(self, session_id: str) -> None:
        """Forget a conversation, or all ('')."""
        self._guarded(lambda: self.policy.forget(session_id), None)

    def clear(self) -> None:
        """Forget all frames: the node's clock has jumped."""
        self._guarded(self.policy.clear, None)

    def close(self) -> None:
        """Want nothing any more."""
        self._is_closed = True
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._hints)
        self._guarded(self.policy.close, None)

    def measure(self) -> None:
        """Take note of the chip's time; the diagnostics timer calls this once a second."""
        self._busy.append((self._time.steady.now_ns(), self.policy.report.busy_s))

    def facts(self) -> AheadFacts:
        """Return how it does now."""
        policy, report = self.policy, self.policy.report
        if self._time.steady.now_ns() - self._failed_ns > FAULT_NOTED_NS:
            self._problem = ''
        problems = (self._problem, self._gate.problem, report.problem, self._hint_problem)
        return AheadFacts(
            mode=policy.settings.mode,
            chip_share=self._chip_share(),
            refreshes=policy.added,
            looks=policy.looks.taken,
            encodes=report.encodes,
            pieces=report.pieces,
            questions=policy.counts.questions,
            hints=policy.counts.hints,
            restarts=report.restarts,
            failures=report.failures + self._failures,
            ready=tuple(f'{key.camera} {key.stamp_ns / NS_PER_S:.3f}' for key in report.ready),
            tokens=report.tokens,
            problem='; '.join(filter(None, problems)),
        )

    def _check(self) -> None:
        info = self._info()
        if info is not None:
            self.policy.is_loaded = True
            self.policy.fit(info.max_images)
            if isinstance(info, ChipModelInfo):
                self.policy.kv_slots = info.limits.kv_slots
        now_ns = self._time.steady.now_ns()
        is_paused = self._gate.is_too_hot(now_ns)
        self.policy.check(now_ns, self._defaults().system_prompt, is_paused=is_paused)

    def _on_report(self, report: AheadReport) -> None:
        if not self._is_closed:
            self._guarded(lambda: self.policy.on_report(report), None)

    def _on_hint(self, hint: Hint) -> None:
        def take() -> None:
            is_known = self.policy.hint(
                hint.cameras,
                hint.session_id,
                self._time.steady.now_ns(),
                self._defaults().system_prompt,
            )
            self._hint_problem = '' if is_known else f'a hint of cameras {_listed(hint.cameras)}'
            if not is_known:
                self._hint_problem += ', which are not watched together (ahead.cameras)'
            self._check()

        self._guarded(take, None)

    def _chip_share(self) -> float:
        if len(self._busy) < 2:
            return 0.0
        span_ns = self._busy[-1][0] - self._busy[0][0]
        # A model process that was started again counts from 0.
        busy_s = sum(max(0.0, b - a) for (_, a), (_, b) in pairwise(self._busy))
        return busy_s * NS_PER_S / max(1, span_ns)

    def _guarded(self, do: Callable[[], _T], otherwise: _T) -> _T:
        """Do something whose failure concerns nobody who asks."""
        try:
            done = do()
        except NotReadyError:  # The backend is closed; so will this be.
            return otherwise
        except Exception as error:  # noqa: BLE001 - questions are answered all the same
            problem = f'{type(error).__name__}: {error}'
            if problem != self._problem:
                self._node.get_logger().error(f'ahead of questions: {problem}')
            self._problem = problem
            self._failed_ns = self._time.steady.now_ns()
            self._failures += 1
            return otherwise
        return done


def _listed(names: Iterable[str]) -> str:
    return ', '.join(names)
