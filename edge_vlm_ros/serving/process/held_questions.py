"""Questions that wait for a model: who has to go for one more, and in which order they are asked.

Under PREEMPT as on a loaded model, as if no time passed while it loads: the question whose turn is
next stands for the one that would run. Under REPLACE_OLDEST it may go like all others, for it has
not begun either. What `newest_wins` asks for is seen to when the model has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_vlm_ros.scheduling import QueuePolicy, oldest_of_lowest
from edge_vlm_ros.serving.endings import preempted_error, replaced_error

if TYPE_CHECKING:
    from edge_vlm_ros.core import EdgeVlmError, Priority, Question
    from edge_vlm_ros.serving.settings import ServingSettings


def has_to_go(
    held: Sequence[Question], priority: Priority, settings: ServingSettings
) -> tuple[Question, EdgeVlmError] | None:
    """Return which question ends for a newcomer, and why; None = none has to, or none can.

    Args:
        held: In the order they came.
        priority: The newcomer's.
        settings: The queue's bounds and its policy.
    """
    if settings.queue_policy is QueuePolicy.PREEMPT:
        victim = next(iter(by_turn(held)), None)
        error = preempted_error
    elif settings.queue_policy is QueuePolicy.REPLACE_OLDEST and len(held) >= settings.max_held:
        victim = oldest_of_lowest(held)
        error = replaced_error
    else:
        return None
    if victim is None or victim.priority > priority:
        return None
    return victim, error()


def by_turn(held: Sequence[Question]) -> list[Question]:
    """List them by their turn: a higher priority first, of equal ones the oldest."""
    return sorted(held, key=lambda question: -question.priority)


def to_ask(held: Sequence[Question], policy: QueuePolicy) -> list[Question]:
    """Return what a model is asked that is loaded now, in this order.

    They come to it in one burst, but not one after the other: under PREEMPT each would take the
    chip from the one before, so that only the last was answered.
    """
    if policy is not QueuePolicy.PREEMPT:
        return list(held)
    return [replace(question, preempts=False) for question in by_turn(held)]
