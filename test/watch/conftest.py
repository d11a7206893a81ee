"""A watch whose looks the test answers, on a clock that the test moves."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.vision import Thumbnail
from edge_vlm_ros.watch import Decision, Now, StandingQuestion, Verdict, WatchSpec


def picture(brightness):
    """Return a look at a picture of one brightness."""
    return Thumbnail(np.full((36, 64, 3), brightness, np.uint8), ('rgb8', 640, 480, (0, 0)))


class Hand:
    """Moves a watch's time, shows it pictures and answers it."""

    def __init__(self, **fields):
        self.time_s = 100.0
        self.said = []
        self.decisions = []
        usual = {'name': 'w', 'question': 'Well?', 'period_s': 1.0, 'every_look': True}
        self.watch = StandingQuestion(WatchSpec(**{**usual, **fields}), self.now)

    @property
    def now(self):
        return Now(round(self.time_s * NS_PER_S), round((self.time_s + 1000) * NS_PER_S))

    @property
    def kinds(self):
        return [event.kind.name for event in self.said]

    def keep(self, events):
        self.said += events
        return events

    def tick(self, seconds=0.0):
        self.time_s += seconds
        self.keep(self.watch.tick(self.now))

    def due(self, scene=100, **options):
        """Let the next look fall due, and show it something."""
        self.time_s = max(self.time_s, self.watch.due_ns / NS_PER_S)
        sight = {'front': picture(scene)} if isinstance(scene, int) else scene
        decision, events = self.watch.see(self.now, sight, **options)
        self.keep(events)
        self.decisions.append(decision)
        return decision

    def look(self, answer, scene=100, probability=None, cost_s=0.1):
        """Let a look fall due and answer it; return what became of it."""
        decision = self.due(scene)
        if decision is Decision.LOOK:
            self.time_s += cost_s
            verdict = Verdict(answer, probability, round(self.time_s * NS_PER_S))
            self.keep(self.watch.answered(self.watch.look_id, self.now, verdict))
        self.tick()
        return decision

    def looks(self, answers):
        """Answer one look after the other: y is yes, n is no, ? is neither."""
        for letter in answers:
            self.look({'y': 'yes', 'n': 'no', '?': ''}[letter])


@pytest.fixture
def hand():
    return Hand
