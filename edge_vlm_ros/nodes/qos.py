"""Quality of service of every topic here.

Every value is named: the presets differ between distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

__all__ = ['UnsupportedEventTypeError']

RELIABILITIES = {
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
    'reliable': ReliabilityPolicy.RELIABLE,
}


HISTORIES = {'keep_last': HistoryPolicy.KEEP_LAST, 'keep_all': HistoryPolicy.KEEP_ALL}
DURABILITIES = {
    'volatile': DurabilityPolicy.VOLATILE,
    'transient_local': DurabilityPolicy.TRANSIENT_LOCAL,
}


def reliable(depth: int) -> QoSProfile:
    """Return the profile of topics whose messages must all arrive."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


def latched() -> QoSProfile:
    """Return the profile of a topic whose last message also reaches who comes later."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def camera(reliability: str, depth: int, durability: str = 'volatile') -> QoSProfile:
    """Return the profile of a camera topic.

    A best-effort subscription takes from both kinds of publisher, a reliable one only from a
    reliable publisher. A volatile one takes what is sent from now on; a transient-local one also
    what was sent before, from a publisher that kept it and resends it (which takes reliability).
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=RELIABILITIES[reliability],
        durability=DURABILITIES[durability],
    )


ANSWER_CHUNKS = reliable(500)
"""Depth bounds a burst: a slow reader of a long answer must not lose its end."""

SERVICE = reliable(1000)
"""Requests wait here while the executor is busy, and replies until they are sent. A burst of more
pushes the oldest out: no error says so, and the caller waits forever. With a depth of 100, 193 of
300 callers at once never heard a word; the usual one is 10, and 1000 from Lyrical on.
"""

ANSWER_TEXT = reliable(10)
HINT = camera('best_effort', 10)
"""A hint is for now: from any publisher, and none is worth sending again."""
DEBUG_IMAGE = reliable(1)
DIAGNOSTICS = reliable(10)
EVENTS = reliable(100)
STATE = latched()


def subscription_events(
    on_incompatible: Callable[[str], None], on_lost: Callable[[int], None] | None = None
) -> SubscriptionEventCallbacks:
    """Return callbacks for what a subscription hears beside its messages.

    Args:
        on_incompatible: Called with the name of a policy that keeps a publisher from matching.
        on_lost: Called with the number of messages that did not arrive; None where the middleware
            reports none (creating the subscription then raises `UnsupportedEventTypeError`).
    """

    def on_event(event: Any) -> None:
        on_incompatible(str(qos_policy_name_from_kind(event.last_policy_kind)).lower())

    lost = None if on_lost is None else lambda event: on_lost(event.total_count_change)
    return SubscriptionEventCallbacks(
        incompatible_qos=on_event, message_lost=lost, use_default_callbacks=False
    )


def no_publisher_events() -> PublisherEventCallbacks:
    """Return callbacks for no event: each is one thing more for the executor to wait on."""
    return PublisherEventCallbacks(use_default_callbacks=False)
