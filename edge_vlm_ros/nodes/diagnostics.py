"""What goes to /diagnostics: one status for the engine, one for the queue, one for each camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.requests import RequestCounts


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """The engine, for diagnostics.

    Attributes:
        level: 'OK', 'WARN' or 'ERROR'.
        message: For people.
        values: Numbers and names.
    """

    level: str
    message: str
    values: Mapping[str, Any]


def engine_status(node: str, hardware: str, health: EngineHealth) -> DiagnosticStatus:
    """Return the status of the engine.

    Args:
        node: The node's name.
        hardware: Chip and device numbers.
        health: How it does.
    """
    return _status(f'{node}: engine', hardware, health.level, health.message, health.values)


def queue_status(
    node: str, hardware: str, open_requests: int, limit: int, counts: RequestCounts
) -> DiagnosticStatus:
    """Return the status of the queue of requests."""
    is_full = open_requests >= limit
    message = (
        f'full: {limit} requests run or wait, the next one is refused'
        if is_full
        else f'{open_requests} of {limit} requests run or wait'
    )
    values = {
        'open': open_requests,
        'limit': limit,
        'answered': counts.answered,
        'failed': counts.failed,
        'cancelled': counts.cancelled,
    }
    return _status(f'{node}: queue', hardware, 'WARN' if is_full else 'OK', message, values)


def camera_status(node: str, health: CameraHealth) -> DiagnosticStatus:
    """Return the status of one camera."""
    problem = health.problem
    values = {
        'topic': health.topic,
        'transport': health.transport,
        'reliability': health.reliability,
        'publishers': health.publishers,
        'fps': f'{health.fps:.2f}',
        'age_s': f'{health.age_s:.3f}',
        'silence_s': f'{health.silence_s:.3f}',
        'received': health.received,
        'dropped': health.dropped,
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
