"""What the scheduler has to say about an event, beside the work that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from edge_vlm_ros.core import FeatureKey


class Ending(Enum):
    """Why a question that was let in is over."""

    ANSWERED = 'answered'
    FAILED = 'failed'
    CANCELLED = 'cancelled'
    DEADLINE = 'deadline'
    PREEMPTED = 'preempted'
    """A newer one of at least its priority took the chip from it."""

    REPLACED = 'replaced'
    """It waited, and had to make room for a newer one in a full queue."""

    OUTDATED = 'outdated'
    """It waited, and a newer one is about the same cameras."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A question is over: no work for it is given out any more.

    Work that was under way for it may still run; its `WorkDone` is expected all the same.
    """

    request_id: str
    ending: Ending


@dataclass(frozen=True, slots=True)
class Rejected:
    """A question was not let in: there is no room for it.

    Attributes:
        request_id: The question's.
        waiting: Questions in the queue, the running one not counted.
        max_waiting: The queue's bound.
    """

    request_id: str
    waiting: int
    max_waiting: int


@dataclass(frozen=True, slots=True)
class OfferEnded:
    """Nothing more is done for what was offered under a key.

    Its features are kept, or they could not be made, or a newer offer took its place.
    """

    key: FeatureKey


@dataclass(frozen=True, slots=True)
class PrefixReady:
    """The wanted prefix is whole in the KV cache. Told again after a question had the cache."""

    number: int


@dataclass(frozen=True, slots=True)
class PrefixFailed:
    """The wanted prefix cannot be made; nothing more is done for it."""

    number: int


@dataclass(frozen=True, slots=True)
class Evicted:
    """Whatever is kept under a key, pixels or features, is to be forgotten."""

    key: FeatureKey


Notice: TypeAlias = 'Ended | Rejected | OfferEnded | PrefixReady | PrefixFailed | Evicted'
