"""Hours of watching and asking in virtual time: the real pipeline, policy and detector.

The stub counts how long the chip would work instead of sleeping, and that is the clock. Whatever
is due (a look at the camera, a hint, a question) happens on the chip's thread, between two runs of
a layer at the earliest, as it would where a node tells the model process.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_vlm_ros.core import NS_PER_S, Prefix, Question, SamplingOptions
from edge_vlm_ros.scheduling.watched_window import WatchedWindow, WindowSettings
from edge_vlm_ros.vision.change import has_changed, thumbnail
from tools.bench.ahead.scene import Camera, Shot, poisson_ns
from tools.bench.ahead.stub_model import SYSTEM_TEXT, VirtualClock, words
from tools.bench.ahead.watched import WINDOW, names_of

if TYPE_CHECKING:
    from edge_vlm_ros.core import AnswerChunk, StoredFrame
    from edge_vlm_ros.serving import VlmPipeline
    from edge_vlm_ros.serving.ahead import AheadReport
    from edge_vlm_ros.serving.step import Step

LOOK_NS = NS_PER_S // 5
"""How often the node looks at the newest frame."""

ANSWER_TOKENS = 40
_LEAD_IN_NS = 120 * NS_PER_S
_LEAD_OUT_NS = 60 * NS_PER_S
_PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class Design:
    """One way to be asked about a camera.

    Attributes:
        name: For people.
        frames: Most that a question shows.
        window: How the window is kept up; None = nothing is made ahead, and a question shows the
            frames of the last seconds.
        question_tokens: Of the question's words.
        is_flat_out: A frame is added whenever the one before is ready, whatever it shows.
        is_asked_blind: A question shows the window as it stands: no look at the newest frame.
        is_fresh: Each question shows a frame that was taken at its moment.
        hint_s: So long before a question it is known that there will be one; 0 = it is not.
        questions: How many are asked, one a minute on average.
        changes_s: Mean time between changes of the scene.
    """

    name: str
    frames: int
    window: WindowSettings | None = None
    question_tokens: int = 20
    is_flat_out: bool = False
    is_asked_blind: bool = False
    is_fresh: bool = False
    hint_s: float = 0.0
    questions: int = 360
    changes_s: float = 30.0


@dataclass(slots=True)
class Outcome:
    """What came of one design. Lists have an entry a question, in seconds.

    Attributes:
        design: Which one.
        first_s: To the first token, of those that found no other question there.
        ages_s: Of the newest frame when the first token came.
        waits_s: For the chip, of those that found no other question there.
        frames: Shown.
        unseen: Questions to whose moment a change lies after the newest frame that was shown.
        ready: By `Readiness`.
        hours: That were simulated.
        ahead_s: Chip time of work ahead.
        busy_s: Chip time of all work.
    """

    design: Design
    first_s: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    unseen: int = 0
    ready: dict[int, int] = field(default_factory=dict)
    hours: float = 0.0
    ahead_s: float = 0.0
    busy_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return what figures and plots are made of."""

        def at(values: list[float], percent: float) -> float:
            return float(np.percentile(values, percent))

        return {
            'name': self.design.name,
            'questions': len(self.frames),
            'frames': float(np.mean(self.frames)),
            'ttft_p50_s': at(self.first_s, 50),
            'ttft_p95_s': at(self.first_s, 95),
            'age_p50_s': at(self.ages_s, 50),
            'age_p95_s': at(self.ages_s, 95),
            'wait_mean_s': float(np.mean(self.waits_s)),
            'wait_max_s': max(self.waits_s),
            'waits_s': [round(wait, 4) for wait in self.waits_s],
            'unseen': self.unseen,
            'ready': {str(key): number for key, number in sorted(self.ready.items())},
            'duty': self.ahead_s / (3600 * self.hours),
            'ahead_s_per_question': self.ahead_s / len(self.frames),
            'chip_s_per_question': self.busy_s / len(self.frames),
        }


class Hook:
    """The pipeline's `on_work`; what it does can be changed."""

    def __init__(self) -> None:
        self.simulation: Simulation | None = None

    def __call__(self, step: Step) -> None:
        """Let happen what is due."""
        if self.simulation is not None:
            self.simulation.go_on(is_rest=step.is_rest)


class Simulation:
    """One design, simulated from now on. All but `run` is called on the chip's thread.

    Args:
        design: What is simulated.
        pipeline: With `hook` as its `on_work`, and `clock`.
        hook: As said.
        clock: Virtual time.
        seed: Of questions and changes.
    """

    def __init__(
        self, design: Design, pipeline: VlmPipeline, hook: Hook, clock: VirtualClock, seed: int
    ) -> None:
        self._design, self._pipeline, self._hook, self._clock = design, pipeline, hook, clock
        rng = np.random.default_rng(seed)
        begin_ns = clock.now_ns() + _LEAD_IN_NS
        gaps_s = rng.exponential(60.0, design.questions)
        asked_ns = [begin_ns + round(at_s * NS_PER_S) for at_s in np.cumsum(gaps_s)]
        self._begin_ns, self._stop_ns = begin_ns, asked_ns[-1] + _LEAD_OUT_NS
        self._camera = Camera(rng, poisson_ns(rng, design.changes_s, begin_ns, self._stop_ns))
        self._window = None if design.window is None else WatchedWindow(('camera',), design.window)
        self._wish: tuple[StoredFrame, ...] = ()
        self._report: AheadReport | None = None
        self._outcome = Outcome(design)
        self._before = (0.0, 0)
        self._open = 0
        self._numbers = itertools.count()
        self._due: list[tuple[int, int, Callable[[int], bool]]] = []
        self._is_over = threading.Event()
        self._plan(begin_ns, self._begin)
        self._plan(self._stop_ns, self._end)
        if self._window is not None:
            self._plan(clock.now_ns(), self._look)
        for at_ns in asked_ns:
            self._plan(at_ns, self._ask)
            if design.hint_s:
                self._plan(at_ns - round(design.hint_s * NS_PER_S), self._hint)

    def run(self) -> Outcome:
        """Simulate; from any thread but the chip's.

        Raises:
            RuntimeError: It takes far too long, or a question was not answered.
        """
        self._pipeline.listen_ahead(self._take_report)
        self._hook.simulation = self
        self._pipeline.want_prefix(None)  # The chip's thread begins to turn.
        is_over = self._is_over.wait(_PATIENCE_S)
        self._hook.simulation = None
        if not is_over or len(self._outcome.frames) < self._design.questions:
            answered = len(self._outcome.frames)
            raise RuntimeError(f'{self._design.name}: {answered} questions were answered')
        return self._outcome

    def go_on(self, *, is_rest: bool) -> None:
        """Let happen what is due; where the chip has nothing to do, until it has."""
        has_work = not is_rest
        while self._due and self._due[0][0] <= self._clock.now_ns():
            has_work |= self._next()
        while self._due and not has_work:
            self._clock.wait_until(self._due[0][0])
            has_work = self._next()

    def _plan(self, at_ns: int, act: Callable[[int], bool]) -> None:
        heapq.heappush(self._due, (at_ns, next(self._numbers), act))

    def _next(self) -> bool:
        """Let the next thing happen; return whether the chip has something to do for it."""
        at_ns, _, act = heapq.heappop(self._due)
        return act(at_ns)

    # --- what happens ----------------------------------------------------------------------------

    def _begin(self, _at_ns: int) -> bool:
        self._before = self._spent()
        return False

    def _end(self, _at_ns: int) -> bool:
        ahead_s, busy_ns = self._spent()
        self._outcome.hours = (self._stop_ns - self._begin_ns) / NS_PER_S / 3600
        self._outcome.ahead_s = ahead_s - self._before[0]
        self._outcome.busy_s = (busy_ns - self._before[1]) / NS_PER_S
        self._due.clear()
        self._is_over.set()
        return False

    def _look(self, at_ns: int) -> bool:
        """Look at the newest frame, as the node does all the time."""
        window, shot = self._window, self._camera.newest(at_ns)
        assert window is not None
        self._plan(at_ns + LOOK_NS, self._look)
        if self._design.is_flat_out:
            if not self._wish or self._is_ready(self._wish):
                window.add(shot.frame, None, at_ns)
        elif window.wants_look(shot.frame, at_ns):
            window.see(shot.frame, thumbnail(shot.frame.image), at_ns)
        return self._tell()

    def _hint(self, at_ns: int) -> bool:
        """Somebody is about to ask: take the newest frame."""
        window, shot = self._window, self._camera.newest(at_ns)
        assert window is not None
        window.add(shot.frame, thumbnail(shot.frame.image), at_ns)
        return self._tell(is_urgent=True)

    def _ask(self, at_ns: int) -> bool:
        shot = self._camera.newest(at_ns)
        frames = self._last_seconds(at_ns) if self._window is None else self._choose(shot, at_ns)
        newest = self._camera.shot_of(frames[-1])
        outcome, is_alone = self._outcome, not self._open
        self._open += 1

        def on_chunk(chunk: AnswerChunk) -> None:
            answer = chunk.answer
            if answer is None or not answer.success:
                return
            self._open -= 1
            timings, age_s = answer.timings, (at_ns - newest.at_ns) / NS_PER_S
            if is_alone:
                outcome.first_s.append(timings.time_to_first_token_s)
                outcome.ages_s.append(age_s + timings.time_to_first_token_s)
                outcome.waits_s.append(timings.queue_s)
            outcome.frames.append(len(answer.frames))
            outcome.unseen += newest.scene != shot.scene
            outcome.ready[answer.readiness] = outcome.ready.get(answer.readiness, 0) + 1

        question = Question(
            words(self._design.question_tokens),
            frames=frames,
            system_prompt=SYSTEM_TEXT,
            sampling=SamplingOptions(max_tokens=ANSWER_TOKENS),
            asked_ns=at_ns,
            shown_as=WINDOW,
        )
        self._pipeline.ask(question, on_chunk)
        self._tell()
        return True

    # --- which frames ----------------------------------------------------------------------------

    def _last_seconds(self, at_ns: int) -> tuple[StoredFrame, ...]:
        """Choose frames as the plain schedule does: one of each of the last seconds."""
        last = range(self._design.frames - 1, -1, -1)
        return tuple(self._camera.newest(at_ns - number * NS_PER_S).frame for number in last)

    def _choose(self, shot: Shot, at_ns: int) -> tuple[StoredFrame, ...]:
        """Choose frames as the node's gate does."""
        window, live = self._window, shot.frame
        assert window is not None
        is_blind = self._design.is_flat_out or self._design.is_asked_blind
        look = thumbnail(live.image)
        is_new = not is_blind and (self._design.is_fresh or window.has_changed(live, look))
        if is_new:
            window.add(live, look, at_ns)
        old = window.previous
        if old and self._pipeline.info.limits.kv_slots > 1 and self._is_ready(old):
            is_other = self._design.is_fresh or has_changed(thumbnail(old[-1].image), look)
            return (*old[:-1], live) if is_other and not is_blind else old
        # What is being added is not waited for.
        less = window.frames[:-1]
        return less if is_blind and less and self._is_ready(less) else window.frames

    def _tell(self, *, is_urgent: bool = False) -> bool:
        """Tell the pipeline what is wanted, if that is new."""
        frames = () if self._window is None else self._window.frames
        if self._wish == frames:
            return False
        self._wish = frames
        wish = Prefix(frames, system_prompt=SYSTEM_TEXT, shown_as=WINDOW, is_urgent=is_urgent)
        self._pipeline.want_prefix(wish)
        return True

    def _is_ready(self, frames: tuple[StoredFrame, ...]) -> bool:
        return self._report is not None and self._report.ready == names_of(frames)

    def _take_report(self, report: AheadReport) -> None:
        self._report = report

    def _spent(self) -> tuple[float, int]:
        busy_s = 0.0 if self._report is None else self._report.busy_s
        return busy_s, self._clock.busy_ns()
