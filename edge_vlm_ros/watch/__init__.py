"""Standing questions: when a look is due, what it means, what there is to say. No clock."""

from edge_vlm_ros.watch.board import WatchBoard
from edge_vlm_ros.watch.counts import WatchCounts, WatchFacts
from edge_vlm_ros.watch.gate import Scene, SceneGate
from edge_vlm_ros.watch.spec import (
    MAX_WATCHES,
    RANGES,
    WatchSpec,
    check_watch_name,
    fields_of,
    mode_of,
    spec_of,
)
from edge_vlm_ros.watch.standing import StandingQuestion
from edge_vlm_ros.watch.words import (
    Blindness,
    Decision,
    EventKind,
    Missed,
    Now,
    Verdict,
    WatchEvent,
    WatchMode,
    WatchPhase,
    missed_by,
)

__all__ = [
    'MAX_WATCHES',
    'RANGES',
    'Blindness',
    'Decision',
    'EventKind',
    'Missed',
    'Now',
    'Scene',
    'SceneGate',
    'StandingQuestion',
    'Verdict',
    'WatchBoard',
    'WatchCounts',
    'WatchEvent',
    'WatchFacts',
    'WatchMode',
    'WatchPhase',
    'WatchSpec',
    'check_watch_name',
    'fields_of',
    'missed_by',
    'mode_of',
    'spec_of',
]
