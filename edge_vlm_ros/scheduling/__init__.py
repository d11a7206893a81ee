"""What the chip does next: events in, work out; no thread, no clock of its own, no tensor."""

from edge_vlm_ros.scheduling.events import (
    Cancelled,
    Decoded,
    Encoded,
    Event,
    Failed,
    FrameArrived,
    GivenUp,
    Outcome,
    Prefilled,
    Prepared,
    QuestionAsked,
    Rendered,
    Tick,
    WorkDone,
)
from edge_vlm_ros.scheduling.feature_ledger import FeatureLedger
from edge_vlm_ros.scheduling.notices import Ended, Ending, Evicted, Notice, Rejected
from edge_vlm_ros.scheduling.scheduler import Scheduler, SchedulerSettings
from edge_vlm_ros.scheduling.work import (
    AHEAD,
    Decode,
    Encode,
    Idle,
    Prefill,
    Prepare,
    Render,
    Work,
)

__all__ = [
    'AHEAD',
    'Cancelled',
    'Decode',
    'Decoded',
    'Encode',
    'Encoded',
    'Ended',
    'Ending',
    'Event',
    'Evicted',
    'Failed',
    'FeatureLedger',
    'FrameArrived',
    'GivenUp',
    'Idle',
    'Notice',
    'Outcome',
    'Prefill',
    'Prefilled',
    'Prepare',
    'Prepared',
    'QuestionAsked',
    'Rejected',
    'Render',
    'Rendered',
    'Scheduler',
    'SchedulerSettings',
    'Tick',
    'Work',
    'WorkDone',
]
