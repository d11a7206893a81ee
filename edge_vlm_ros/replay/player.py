"""A recording played to watches and questions, on the recording's own time.

Time goes from frame to frame; while the chip answers, so much of it passes as the answer took. So
a look that takes three seconds shows what it would have shown on the robot: a frame of three
seconds ago, and looks that were missed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    BadImageError,
    BadRequestError,
    Priority,
    Question,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.replay.arrivals import Arrival, Recording
from edge_vlm_ros.replay.files import TimedQuestion
from edge_vlm_ros.replay.records import (
    Played,
    event_record,
    look_record,
    question_record,
)
from edge_vlm_ros.vision import FrameBuffer, Thumbnail, choose_frames, thumbnail
from edge_vlm_ros.watch import (
    Blindness,
    Decision,
    Missed,
    Now,
    Scene,
    StandingQuestion,
    Verdict,
    WatchBoard,
    WatchSpec,
    missed_by,
)
from edge_vlm_ros.watch.standing import Events

CHECK_NS: Final = NS_PER_S // 10
"""How often it is looked whether a look is due, as the node does."""

BUFFER_SECONDS: Final = 1.0
"""Frames that are kept at least; of clips as many as the longest is."""

BUFFER_BYTES: Final = 1 << 30

Ask = Callable[[Question], Answer]


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How a recording is played.

    Attributes:
        max_age_s: A look at older frames is missed, where the watch says nothing.
        max_frames: Of a clip, likewise.
        look_s: What each answer takes, seconds; 0 = what it took here. A regression test that is
            to give the same on every machine sets it.
    """

    max_age_s: float = 2.0
    max_frames: int = 8
    look_s: float = 0.0


@dataclass(slots=True)
class _Job:
    """What the chip is doing.

    Attributes:
        until_ns: When it will be done.
        finish: What becomes of the answer then.
    """

    until_ns: int
    finish: Callable[[int], None]


@dataclass(slots=True)
class _Camera:
    buffer: FrameBuffer
    newest: Arrival | None = None


class Player:
    """Plays one recording. One thread.

    Args:
        recording: What is played.
        ask: Answers a question; blocks.
        specs: The watches.
        questions: What is asked at which moment, in order.
        settings: How it is played.
        on_progress: Told how far it is, seconds of the recording.

    Raises:
        BadRequestError: A watch is about a camera that the recording has not.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        recording: Recording,
        ask: Ask,
        specs: Sequence[WatchSpec],
        questions: Sequence[TimedQuestion] = (),
        *,
        settings: ReplaySettings = ReplaySettings(),
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._recording = recording
        self._ask = ask
        self._settings = settings
        self._on_progress = on_progress
        self._waiting = list(questions)
        windows_s = [s.last_seconds for s in specs] + [q.last_seconds for q in questions]
        longest_s = max(BUFFER_SECONDS, *windows_s, 0.0)
        self._cameras = {name: _Camera(_buffer(longest_s)) for name in recording.cameras}
        self._board = WatchBoard()
        self._job: _Job | None = None
        self._now_ns = 0
        self.played = Played(recording.name, recording.cameras)
        for spec in specs:
            for name in spec.cameras:
                if name not in self._cameras:
                    listed = ', '.join(self._cameras)
                    raise BadRequestError(f'{recording.name} has no camera {name!r}, but {listed}')
            self._board.put(spec, Now(0, 0))

    def play(self) -> Played:
        """Play it to its end; return all that came of it."""
        for arrival in self._recording.arrivals():
            self._go_to(arrival.time_ns)
            camera = self._cameras[arrival.frame.source.camera]
            camera.newest = arrival
            camera.buffer.add(arrival.frame, arrival.time_ns)
            self.played.frames += 1
            self._step()
            self._on_progress(self._now_ns / NS_PER_S)
        self.played.seconds = self._now_ns / NS_PER_S
        self.played.unasked = len(self._waiting)
        if self._job is not None:  # It began within the recording: its answer counts.
            self._finish_job(self._job)
        self._keep(self._board.stop(self._now(), 'the recording is over'))
        self.played.facts = [watch.facts() for watch in self._board]
        return self.played

    # --- time ------------------------------------------------------------------------------------

    def _now(self) -> Now:
        return Now(self._now_ns, self._now_ns)

    def _go_to(self, time_ns: int) -> None:
        """Let time pass, up to a moment."""
        while True:
            stops = [self._now_ns + CHECK_NS]
            if self._job is not None:
                stops.append(self._job.until_ns)
            stop_ns = max(self._now_ns, min(stops))
            if stop_ns >= time_ns:
                break
            self._now_ns = stop_ns
            self._step()
        self._now_ns = time_ns

    def _step(self) -> None:
        """Do what there is to be done now."""
        if self._job is not None and self._job.until_ns <= self._now_ns:
            self._finish_job(self._job)
        now = self._now()
        while self._job is None and self._waiting:
            if self._waiting[0].at_s * NS_PER_S > self._now_ns:
                break
            self._answer(self._waiting.pop(0))
        for watch in self._board.due(now):
            sight = self._sight(watch.spec)
            decision, events = watch.see(now, sight, may_look=self._job is None)
            self._keep(events)
            if decision is Decision.LOOK:
                self._look(watch)
        self._keep(self._board.tick(now))

    def _finish_job(self, job: _Job) -> None:
        self._job = None
        job.finish(max(job.until_ns, 0))

    # --- what the chip does ----------------------------------------------------------------------

    def _look(self, watch: StandingQuestion) -> None:
        spec, look_id, begun_ns = watch.spec, watch.look_id, self._now_ns
        question = Question(
            spec.question,
            frames=self._frames(spec.cameras, spec.last_seconds, spec.max_frames),
            choices=spec.choices,
            sampling=SamplingOptions(max_tokens=64),
            priority=Priority.BACKGROUND,
        )
        answer, cost_s = self._asked(question)

        def finish(now_ns: int) -> None:
            now = Now(now_ns, now_ns)
            newest_ns = max(frame.stamp_ns for frame in question.frames)
            record = look_record(spec, answer, begun_ns, now_ns, newest_ns)
            self.played.add_answer(record, cost_s, (now_ns - newest_ns) / NS_PER_S)
            if answer.success:
                verdict = Verdict(answer.choice, answer.choice_probability, newest_ns)
                self._keep(watch.answered(look_id, now, verdict))
            else:
                missed = missed_by(answer.error_code, answer.message)
                self._keep(watch.failed(look_id, now, missed))

        self._job = _Job(begun_ns + round(cost_s * NS_PER_S), finish)

    def _answer(self, timed: TimedQuestion) -> None:
        """Ask a question of the file; it comes before every look."""
        begun_ns = self._now_ns
        frames = self._frames((), timed.last_seconds, 0)
        if not frames:
            self.played.add_question(question_record(timed, None, begun_ns, begun_ns), 0.0, None)
            return
        question = Question(
            timed.question,
            frames=frames,
            choices=timed.choices,
            sampling=SamplingOptions(max_tokens=256),
        )
        answer, cost_s = self._asked(question)

        def finish(now_ns: int) -> None:
            record = question_record(timed, answer, begun_ns, now_ns)
            age_s = (now_ns - max(frame.stamp_ns for frame in frames)) / NS_PER_S
            self.played.add_question(record, cost_s, age_s)

        self._job = _Job(begun_ns + round(cost_s * NS_PER_S), finish)

    def _asked(self, question: Question) -> tuple[Answer, float]:
        """Ask; return the answer, and how long it took or is to have taken."""
        answer = self._ask(question)
        self.played.model, self.played.chip = answer.model, answer.chip
        return answer, self._settings.look_s or answer.timings.total_s

    # --- what the cameras show -------------------------------------------------------------------

    def _names(self, cameras: Sequence[str]) -> Sequence[str]:
        return cameras or self._recording.cameras[:1]

    def _frames(
        self, cameras: Sequence[str], last_seconds: float, max_frames: int
    ) -> tuple[StoredFrame, ...]:
        names = self._names(cameras)
        most = max(1, (max_frames or self._settings.max_frames) // len(names))
        frames: list[StoredFrame] = []
        for name in names:
            chosen = choose_frames(
                self._cameras[name].buffer,
                last_seconds=last_seconds,
                max_frames=most,
                now_ns=self._now_ns,
            )
            frames += chosen.frames
        return tuple(frames)

    def _sight(self, spec: WatchSpec) -> Scene | Missed:
        max_age_s = spec.max_age_s or self._settings.max_age_s
        scene = {}
        for name in self._names(spec.cameras):
            newest = self._cameras[name].newest
            if newest is None:
                return Missed(Blindness.CAMERA, f'camera {name}: no image has come yet')
            age_s = (self._now_ns - newest.frame.stamp_ns) / NS_PER_S
            if max_age_s and age_s > max_age_s:
                return Missed(
                    Blindness.CAMERA,
                    f'camera {name}: the newest frame is older than {max_age_s:g} s',
                )
            scene[name] = _look_at(newest.frame)
        return scene

    def _keep(self, events: Events) -> None:
        for event in events:
            self.played.records.append(event_record(event))
            self.played.note(event)


def _buffer(seconds: float) -> FrameBuffer:
    return FrameBuffer(max_frames=100_000, max_seconds=seconds, max_bytes=BUFFER_BYTES)


def _look_at(frame: StoredFrame) -> Thumbnail | None:
    """Return a look at a frame; None = it cannot be decoded."""
    try:
        return thumbnail(frame.image)
    except BadImageError:
        return None
