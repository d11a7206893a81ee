"""What goes to /diagnostics: a status for each part of the node and each camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from edge_vlm_ros.core import Readiness
from edge_vlm_ros.nodes import qos

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_vlm_ros.nodes.ahead import AheadFacts
    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.requests import OpenRequests
    from edge_vlm_ros.nodes.status import NodeStatus


MOST_NAMES = 100
"""Requests and conversations that are named in diagnostics."""

_NEXT = {
    'reject': 'the next one is refused',
    'queue': 'the next one is refused',
    'replace_oldest': 'the next one takes the place of the oldest that waits',
    'preempt': 'the next one takes the chip, or is refused',
}


def engine_status(node: str, status: NodeStatus) -> DiagnosticStatus:
    """Return the status of the engine.

    Args:
        node: The node's name, fully qualified.
        status: How the node is.
    """
    message = status.state
    word = message.partition(':')[0]
    values: dict[str, Any] = {'state': word, 'lifecycle': status.lifecycle}
    if status.model is not None:
        values['chip'] = status.chip
        values['model'] = status.model or '(default)'
    engine = status.engine
    if engine is not None:
        values['restarts'] = engine.restarts
        values['held_questions'] = status.held
        if engine.message and engine.loading is None:
            message = f'{word}: {engine.message}'
        if engine.info is not None:
            values['model'] = engine.info.model
            values['load_s'] = f'{engine.info.load_s:.1f}'
    values |= _remote_values(status)
    level = 'OK' if word in {'ready', 'inactive', 'deactivating', 'finalized'} else 'WARN'
    if engine is not None and engine.is_ready and engine.standing.is_spare:
        level, message = 'WARN', f'{message} ({engine.standing.outage})'
    if status.failure:
        level, message = 'ERROR', status.failure
    return status_of(f'{node}: engine', status.hardware, level, message, values)


def _remote_values(status: NodeStatus) -> dict[str, str]:
    """Return what there is to say where images leave the robot."""
    if not status.servers:
        return {}
    values = {'images_leave_robot': 'true', 'servers': ', '.join(status.servers)}
    engine = status.engine
    if engine is None or not engine.is_ready:
        return values
    if engine.info is not None:
        values['answering_chip'] = engine.info.chip
    return {
        **values,
        'server_answers': str(not engine.standing.outage).lower(),
        'no_server_since': status.outage_since,
        'no_server_because': engine.standing.outage,
    }


def queue_status(node: str, hardware: str, requests: OpenRequests) -> DiagnosticStatus:
    """Return the status of the queue of requests."""
    number, limit, counts = len(requests), requests.limit, requests.counts
    is_full = number >= limit
    message = f'{number} of {limit} requests run or wait'
    if is_full:
        message = f'full: {message}, {_NEXT[requests.policy]}'
    if requests.was_flooded:
        message += (
            f'; the middleware keeps {qos.SERVICE.depth} that came at once, and as many came '
            'without a pause: more may have been lost, unseen'
        )
    values = {
        'open': number,
        'limit': limit,
        'policy': requests.policy,
        'order': ', '.join(requests.by_turn()[:MOST_NAMES]),
        'answered': counts.answered,
        'failed': counts.failed,
        'cancelled': counts.cancelled,
        'turned_away': counts.turned_away,
        'largest_burst': counts.largest_burst,
        'inbox': qos.SERVICE.depth,
    }
    level = 'WARN' if is_full or requests.was_flooded else 'OK'
    return status_of(f'{node}: queue', hardware, level, message, values)


def sessions_status(node: str, hardware: str, sessions: Sequence[str]) -> DiagnosticStatus:
    """Return the status of the conversations.

    Args:
        node: The node's name.
        hardware: Chip and device numbers.
        sessions: Their names, the one used last at the end.
    """
    names = ', '.join(sessions[-MOST_NAMES:])
    message = f'{len(sessions)} conversations had a turn and were not reset'
    return status_of(f'{node}: conversations', hardware, 'OK', message, {'names': names})


def ahead_status(node: str, hardware: str, facts: AheadFacts) -> DiagnosticStatus:
    """Return the status of what is made ready before anybody asks.

    Args:
        node: The node's name.
        hardware: Chip and device numbers.
        facts: How it does.
    """
    questions = facts.questions
    hits = sum(
        number for readiness, number in questions.items() if readiness is not Readiness.NONE
    )
    values: dict[str, Any] = {
        'mode': facts.mode,
        'chip_share': f'{facts.chip_share:.3f}',
        'refreshes': facts.refreshes,
        'looks': facts.looks,
        'encodes': facts.encodes,
        'pieces': facts.pieces,
        'hits': hits,
        'misses': questions.get(Readiness.NONE, 0),
        **{each.name.lower(): questions.get(each, 0) for each in Readiness if each},
        'hints': facts.hints,
        'restarts': facts.restarts,
        'failures': facts.failures,
        'ready': ', '.join(facts.ready[-MOST_NAMES:]),
        'ready_tokens': facts.tokens,
        'problem': facts.problem,
    }
    message = facts.problem or f'{len(facts.ready)} frames are ready, {hits} questions found them'
    level = 'WARN' if facts.problem else 'OK'
    return status_of(f'{node}: ahead', hardware, level, message, values)


def camera_status(node: str, health: CameraHealth) -> DiagnosticStatus:
    """Return the status of one camera.

    Its counters tell losses (lost, undecodable, late) from what is normal (replaced, skipped,
    evicted); see `FrameCounts`.
    """
    problem, counts = health.problem, health.counts
    values = {
        'topic': health.topic,
        'transport': health.transport,
        'reliability': health.reliability,
        'middleware': health.losses.middleware,
        'publishers': len(health.publishers),
        'fps': f'{health.fps:.2f}',
        'age_s': f'{health.age_s:.3f}',
        'silence_s': f'{health.silence_s:.3f}',
        'clock_offset_s': f'{health.clock_offset_s:.3f}',
        'received': counts.received,
        'lost': counts.lost,
        'undecodable': counts.undecodable,
        'late': counts.late,
        'replaced': counts.replaced,
        'skipped': counts.skipped,
        'evicted': counts.evicted,
        'buffered_frames': health.kept,
        'buffered_megabytes': f'{health.kept_bytes / 1e6:.1f}',
    }
    message = problem or f'{health.fps:.1f} frames a second'
    level = 'WARN' if problem else 'OK'
    return status_of(f'{node}: camera {health.name}', health.topic, level, message, values)


def status_of(
    name: str, hardware: str, level: str, message: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """Return the message of one status; `level` is a name of its constants."""
    return DiagnosticStatus(
        level=getattr(DiagnosticStatus, level),
        name=name,
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
