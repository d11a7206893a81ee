"""One standing question: a state machine, told what was seen and when.

Rules, each held by a test:

* A look is due once a period. What cannot be looked at when it is due is missed, and counted by
  its reason; so is what falls due while a look is under way or the chip is busy.
* The event begins when N of the last M looks say so, and ends likewise. Only answers are votes:
  an unsure look is none, and an unchanged scene is not answered again.
* A scene is left unlooked at only while it is as the last look saw it *and* that look agrees with
  what the watch says: what is being decided is decided by looks.
* Within the cooldown no event begins; that is counted apart.
* It is blind when it has seen nothing for three periods, or longer than a look takes here: the
  votes are forgotten then, an event that is on stays on, and both ends of the blindness are said.
* What it says is in pairs: after a begin comes an end, whatever ends it (a vote, muting, removal).
  A watch that is muted or off says nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.vision import is_dark
from edge_vlm_ros.watch.counts import WatchCounts, WatchFacts
from edge_vlm_ros.watch.gate import SceneGate
from edge_vlm_ros.watch.votes import Votes
from edge_vlm_ros.watch.words import (
    Blindness,
    Decision,
    EventKind,
    Missed,
    WatchEvent,
    WatchMode,
    WatchPhase,
)

if TYPE_CHECKING:
    from edge_vlm_ros.watch.gate import Scene
    from edge_vlm_ros.watch.spec import WatchSpec
    from edge_vlm_ros.watch.words import Now, Verdict

BLIND_PERIODS: Final = 3

Events = tuple[WatchEvent, ...]


class StandingQuestion:
    """One watch. One thread.

    Args:
        spec: What it is told to do.
        now: When it begins.
    """

    def __init__(self, spec: WatchSpec, now: Now) -> None:
        self.spec = spec
        self.counts = WatchCounts()
        self.due_ns = now.steady_ns
        """When the next look is due, steady time."""

        self.look_id = 0
        """Of the look that is under way, else of the last; `answered` and `failed` name it."""

        self._gate = SceneGate(spec.look_anyway_s, spec.last_seconds)
        self._votes = Votes((spec.begin_looks, spec.begin_of), (spec.end_looks, spec.end_of))
        self._looking: Scene | None = None
        self._due_of_look_ns = self._look_begun_ns = self._look_ns = 0
        self._sight_ns = now.steady_ns
        self._verdict: Verdict | None = None
        self._is_unsure = False
        self._missed: Missed | None = None
        self._is_blind = self._said_blind = False
        self._stopped = ''
        self._event_on = self._said_on = False
        self._event_id = ''
        self._begun_ns = 0
        self._not_before_ns = 0
        self._is_cooling = False
        self._beat_ns = 0

    # --- what is due -----------------------------------------------------------------------------

    @property
    def is_off(self) -> bool:
        """Whether it does not look."""
        return self.spec.mode is WatchMode.OFF or bool(self._stopped)

    def is_due(self, now: Now) -> bool:
        """Return whether a look is due, and none is under way."""
        return not self.is_off and self._looking is None and now.steady_ns >= self.due_ns

    def see(
        self, now: Now, sight: Scene | Missed, *, may_look: bool = True
    ) -> tuple[Decision, Events]:
        """Decide what becomes of the look that is due.

        Args:
            now: When.
            sight: The newest picture of each of its cameras (one at least), or why there is none.
            may_look: The chip is free.

        Returns:
            `Decision.LOOK`: the model is to be asked, and `answered` or `failed` to be told of
            `look_id`. `Decision.WAIT`: the look stays due. And what it has to say.
        """
        if not isinstance(sight, Missed) and all(
            look and is_dark(look) for look in sight.values()
        ):
            sight = Missed(Blindness.DARK, 'there is no light in the picture')
        if isinstance(sight, Missed):
            self.due_ns += self.spec.period_ns
            self._miss(sight)
            return Decision.MISSED, self._speak(now)
        if self._may_rest() and self._gate.is_unchanged(sight, now.steady_ns):
            self.due_ns += self.spec.period_ns
            self.counts.unchanged += 1
            self.counts.due.append(False)
            self._has_seen(now)
            return Decision.UNCHANGED, self._speak(now)
        if not may_look:
            return Decision.WAIT, self._speak(now)
        self._looking = sight
        self.look_id += 1
        self._due_of_look_ns, self._look_begun_ns = self.due_ns, now.steady_ns
        self.due_ns += self.spec.period_ns
        return Decision.LOOK, self._speak(now)

    def answered(self, look_id: int, now: Now, verdict: Verdict) -> Events:
        """Take note of what a look said; of one that nobody waits for any more, nothing."""
        if self._looking is None or look_id != self.look_id:
            return ()
        self._gate.looked(self._looking, self._look_begun_ns)
        self._looking = None
        self._look_ns = now.steady_ns - self._due_of_look_ns
        self.counts.looks += 1
        self.counts.due.append(False)
        self._has_seen(now)
        self._verdict = verdict
        probability = verdict.probability
        is_likely = probability is None or probability >= self.spec.min_probability
        self._is_unsure = not verdict.answer or not is_likely
        if self._is_unsure:
            self.counts.unsure += 1
            return self._speak(now)
        self._votes.add(means_event=self.spec.means_event(verdict.answer))
        self._count_votes(now, verdict)
        return self._speak(now)

    def failed(self, look_id: int, now: Now, missed: Missed) -> Events:
        """Take note that a look came to nothing."""
        if self._looking is None or look_id != self.look_id:
            return ()
        self._looking = None
        self._miss(missed)
        return self._speak(now)

    def tick(self, now: Now) -> Events:
        """Count what could not be looked at when it was due; say what is to be said by now."""
        if not self.is_off:
            late = (now.steady_ns - self.due_ns) // self.spec.period_ns
            for _ in range(min(late, self.counts.due.maxlen or 0)):
                self._miss(Missed(Blindness.BUSY, 'the chip was busy when a look was due'))
            self.due_ns += max(0, late) * self.spec.period_ns
        return self._speak(now)

    # --- what it is told to do -------------------------------------------------------------------

    def set_mode(self, mode: WatchMode, now: Now) -> Events:
        """Change what it does; an event that is on ends with the looks."""
        self.spec = replace(self.spec, mode=mode)
        if mode is WatchMode.OFF:
            return self._rest(now, 'the watch was switched off')
        self._begin_again(now)
        return self._speak(now, 'the watch was muted' if mode is WatchMode.MUTED else '')

    def stop(self, now: Now, why: str) -> Events:
        """Look no more, until `go_on`; an event that is on ends."""
        self._stopped = why
        return self._rest(now, why)

    def go_on(self, now: Now) -> None:
        """Look again."""
        if self._stopped:
            self._stopped = ''
            self._begin_again(now)

    def forget_scene(self) -> None:
        """Forget what was seen: the clock has jumped."""
        self._gate.forget()
        self._votes.clear()

    def facts(self) -> WatchFacts:
        """Return how it does now."""
        return WatchFacts(
            spec=self.spec,
            phase=self._phase(),
            event_on=self._event_on,
            event_id=self._event_id,
            verdict=self._verdict,
            blindness=self._missed.why if self._missed else Blindness.NONE,
            message=self._stopped or (self._missed.message if self._missed else ''),
            look_s=self._look_ns / NS_PER_S,
            counts=self.counts,
        )

    def _phase(self) -> WatchPhase:
        held = {
            WatchPhase.OFF: self.is_off,
            WatchPhase.BLIND: self._is_blind,
            WatchPhase.UNSURE: self._is_unsure,
            WatchPhase.ON: self._event_on,
            WatchPhase.LOOKING: self._looking is not None,
        }
        return max((phase for phase, holds in held.items() if holds), default=WatchPhase.ARMED)

    # --- within ----------------------------------------------------------------------------------

    def _may_rest(self) -> bool:
        """Return whether nothing is being decided: another look like the last would be no news."""
        if self.spec.every_look or self._verdict is None or self._is_unsure:
            return False
        return self.spec.means_event(self._verdict.answer) == self._event_on

    def _miss(self, missed: Missed) -> None:
        self.counts.missed[missed.why] += 1
        self.counts.due.append(True)
        self._missed = missed

    def _has_seen(self, now: Now) -> None:
        self._sight_ns = now.steady_ns
        self._missed = None

    def _count_votes(self, now: Now, verdict: Verdict) -> None:
        if self._event_on:
            if self._votes.say_end:
                self._end(now)
            else:
                self.counts.still_on += self.spec.means_event(verdict.answer)
        elif not self._votes.say_begin:
            self._is_cooling = False
        elif now.steady_ns < self._not_before_ns:
            self.counts.cooled_down += not self._is_cooling
            self._is_cooling = True
        else:
            self._is_cooling = False
            self._event_on = True
            self._begun_ns = verdict.evidence_ns
            self._event_id = f'{self.spec.name}-{verdict.evidence_ns // 1_000_000}'
            self.counts.events += 1
            self._votes.clear()

    def _end(self, now: Now) -> None:
        self._event_on = False
        self._not_before_ns = now.steady_ns + round(self.spec.cooldown_s * NS_PER_S)
        self._votes.clear()

    def _rest(self, now: Now, why: str) -> Events:
        """Look no more: what was under way is of no use."""
        self._looking = None
        if self._event_on:
            self._end(now)
        said = self._speak(now, why)
        self._is_blind = self._said_blind = self._is_unsure = False
        self._missed = None
        self.forget_scene()
        return said

    def _begin_again(self, now: Now) -> None:
        if self.due_ns < now.steady_ns:
            self.due_ns = now.steady_ns
            self._sight_ns = now.steady_ns

    def _speak(self, now: Now, why: str = '') -> Events:
        """Return what is to be said: each begin is followed by its end."""
        self._judge_sight(now)
        is_loud = self.spec.mode is WatchMode.ON and not self._stopped
        said = []
        if self._said_on and not (is_loud and self._event_on):
            self._said_on = False
            text = why or self._by_votes('end')
            said.append(self._event(EventKind.END, now, text, by_look=not why))
        if is_loud and self._event_on and not self._said_on:
            self._said_on = True
            self._beat_ns = now.steady_ns
            said.append(self._event(EventKind.BEGIN, now, self._by_votes('begin')))
        beat_ns = round(self.spec.heartbeat_s * NS_PER_S)
        if self._said_on and beat_ns and now.steady_ns - self._beat_ns >= beat_ns:
            self._beat_ns = now.steady_ns
            said.append(self._event(EventKind.STILL_ON, now, 'the event goes on'))
        if is_loud and self._is_blind != self._said_blind:
            self._said_blind = self._is_blind
            kind = EventKind.BLIND if self._is_blind else EventKind.SIGHT
            message = self._missed.message if self._missed else 'the watch sees again'
            said.append(self._event(kind, now, message, by_look=False))
        return tuple(said)

    def _judge_sight(self, now: Now) -> None:
        if self.is_off:
            return
        period_ns = self.spec.period_ns
        patience_ns = max(BLIND_PERIODS * period_ns, 2 * self._look_ns + period_ns)
        is_blind = self._missed is not None and now.steady_ns - self._sight_ns > patience_ns
        if is_blind and not self._is_blind:
            self._votes.clear()
        self._is_blind = is_blind

    def _by_votes(self, what: str) -> str:
        looks, of = getattr(self.spec, f'{what}_looks'), getattr(self.spec, f'{what}_of')
        said = self._verdict.answer if self._verdict is not None else ''
        return f'{looks} of the last {of} looks say that it {what}s; the last one: {said}'

    def _event(self, kind: EventKind, now: Now, text: str, *, by_look: bool = True) -> WatchEvent:
        verdict, has_event = self._verdict, self._event_on or kind is EventKind.END
        # A clock that was set back makes no event shorter than nothing.
        since_ns = max(0, verdict.evidence_ns - self._begun_ns) if verdict and has_event else 0
        return WatchEvent(
            kind=kind,
            watch=self.spec.name,
            event_id=self._event_id if has_event else '',
            text=text,
            question=self.spec.question,
            verdict=verdict if by_look else None,
            decided_ns=now.ros_ns,
            duration_s=since_ns / NS_PER_S if kind is not EventKind.BEGIN else 0.0,
        )
