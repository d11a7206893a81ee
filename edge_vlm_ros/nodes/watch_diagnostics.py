"""What goes to /diagnostics of watches: a status of each, and of the file that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.nodes.diagnostics import status_of
from edge_vlm_ros.watch import Blindness, WatchPhase

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticStatus

    from edge_vlm_ros.nodes.watches import Watches
    from edge_vlm_ros.watch import WatchFacts

_WORRYING = {WatchPhase.BLIND, WatchPhase.UNSURE}


def watch_statuses(node: str, hardware: str, watches: Watches) -> list[DiagnosticStatus]:
    """Return the statuses.

    Args:
        node: The node's name, fully qualified.
        hardware: Chip and device numbers.
        watches: Of the node.
    """
    statuses = [_status(node, hardware, facts) for facts in watches.facts()]
    if watches.problem:
        statuses.append(status_of(f'{node}: watch file', hardware, 'WARN', watches.problem, {}))
    return statuses


def _status(node: str, hardware: str, facts: WatchFacts) -> DiagnosticStatus:
    counts, verdict, phase = facts.counts, facts.verdict, facts.phase.name.lower()
    values = {
        'state': phase,
        'event_on': str(facts.event_on).lower(),
        'verdict': verdict.answer if verdict is not None else '',
        'missed_share': f'{counts.missed_share:.3f}',
        'looks': counts.looks,
        'unchanged': counts.unchanged,
        **{
            f'missed_{why.name.lower()}': counts.missed[why]
            for why in Blindness
            if why is not Blindness.NONE
        },
        'unsure': counts.unsure,
        'events': counts.events,
        'still_on': counts.still_on,
        'cooled_down': counts.cooled_down,
        'look_s': f'{facts.look_s:.3f}',
    }
    is_bad = facts.phase in _WORRYING
    message = f'{phase}: {facts.message}' if facts.message else phase
    return status_of(
        f'{node}: watch {facts.spec.name}', hardware, 'WARN' if is_bad else 'OK', message, values
    )
