"""What goes to /diagnostics: one status for the engine, one for the queue, one for each camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.requests import OpenRequests
    from edge_vlm_ros.nodes.status import NodeStatus


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
    level = 'OK' if word in {'ready', 'inactive'} else 'WARN'
    if status.failure:
        level, message = 'ERROR', status.failure
    return _status(f'{node}: engine', status.hardware, level, message, values)


def queue_status(node: str, hardware: str, requests: OpenRequests) -> DiagnosticStatus:
    """Return the status of the queue of requests."""
    number, limit = len(requests), requests.limit
    is_full = number >= limit
    message = (
        f'full: {limit} requests run or wait, the next one is refused'
        if is_full
        else f'{number} of {limit} requests run or wait'
    )
    values = {
        'open': number,
        'limit': limit,
        'answered': requests.counts.answered,
        'failed': requests.counts.failed,
        'cancelled': requests.counts.cancelled,
    }
    return _status(f'{node}: queue', hardware, 'WARN' if is_full else 'OK', message, values)


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
    return _status(f'{node}: camera {health.name}', health.topic, level, message, values)


def _status(
    name: str, hardware: str, level: str, message: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=getattr(DiagnosticStatus, level),
        name=name,
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
