"""The ways of watching that are simulated."""

from __future__ import annotations

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.scheduling.watched_window import WindowSettings
from tools.bench.ahead.simulation import Design

_SECOND = NS_PER_S
_NEVER = 1e9


def _every(seconds: int) -> WindowSettings:
    """Add a frame once in so many seconds, whatever it shows."""
    return WindowSettings(7, 2, seconds * _SECOND, seconds * _SECOND, _NEVER)


PLAIN_8, PLAIN_7 = 'vendor, 8 frames', 'vendor, 7 frames'
READY_7, READY_4 = 'ready, up to 7 frames', 'ready, up to 4 frames'
FLAT_OUT = 'ready, 4 to 8 frames, flat out'
FRESH, HINTED = 'ready, one frame taken at the question', 'the same with a hint 3 s before'
EVERY_10, EVERY_30 = 'ready, a frame every 10 s', 'ready, a frame every 30 s'
MOVING = 'ready, up to 7 frames, a change every second'

DESIGNS = (
    Design(PLAIN_8, 8, questions=60),
    Design(PLAIN_7, 7, questions=60),
    Design(READY_4, 4, WindowSettings(4, 1), questions=200),
    Design(FLAT_OUT, 8, WindowSettings(8, 4), is_flat_out=True, questions=100),
    Design(FRESH, 7, WindowSettings(7, 2), is_fresh=True, questions=120, question_tokens=32),
    Design(HINTED, 7, WindowSettings(7, 2), hint_s=3.0, questions=120, question_tokens=32),
    Design(EVERY_10, 7, _every(10), is_asked_blind=True, questions=100),
    Design(EVERY_30, 7, _every(30), is_asked_blind=True, questions=100),
    Design(MOVING, 7, WindowSettings(7, 2), changes_s=1.0, questions=40),
    Design(READY_7, 7, WindowSettings(7, 2), questions=1000),
)
