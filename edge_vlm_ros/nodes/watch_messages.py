"""Watches and their events as messages, and back: pure functions.

The enums of `watch.words` have the numbers of the messages: none needs a table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from std_msgs.msg import Header

from edge_vlm_ros.core import YES_NO
from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.msg import AnswerStats
from edge_vlm_ros.msg import WatchEvent as WatchEventMsg
from edge_vlm_ros.msg import WatchSpec as WatchSpecMsg
from edge_vlm_ros.msg import WatchState as WatchStateMsg
from edge_vlm_ros.msg import WatchStates as WatchStatesMsg
from edge_vlm_ros.nodes.conversions import time_from_ros, time_to_ros
from edge_vlm_ros.srv import Ask
from edge_vlm_ros.watch import RANGES, Blindness, Verdict, WatchSpec, fields_of, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_vlm_ros.watch import WatchEvent, WatchFacts

LEAST_TOKENS = 32
"""Of a look's answer at most, where there are no scores: a choice, and a few words with it."""


def spec_from_ros(message: WatchSpecMsg) -> WatchSpec:
    """Return what a watch is told to do; fields left open get their defaults.

    Raises:
        BadRequestError: A field makes no sense; says which.
    """
    fields: dict[str, Any] = {
        name: getattr(message, name) for name in WatchSpec.__dataclass_fields__
    }
    for name in ('choices', 'when', 'cameras'):
        fields[name] = list(fields[name])
    return spec_of({n: _short(v) if type(v) is float else v for n, v in fields.items()})


def spec_to_ros(spec: WatchSpec) -> WatchSpecMsg:
    """Return the message of what a watch is told to do, nothing left open."""
    fields = {**fields_of(spec), 'mode': int(spec.mode)}
    return WatchSpecMsg(**{n: float(v) if _is_float(n) else v for n, v in fields.items()})


def look_request(spec: WatchSpec, number: int) -> Ask.Request:
    """Return a watch's question, as one of background priority.

    Args:
        spec: The watch.
        number: Of the look; tells the requests apart.
    """
    longest = max(len(choice.encode()) for choice in spec.choices)
    return Ask.Request(
        question=spec.question,
        request_id=f'watch/{spec.name}/{number}',
        cameras=list(spec.cameras),
        last_seconds=spec.last_seconds,
        max_frames=spec.max_frames,
        max_age_s=spec.max_age_s,
        max_tokens=LEAST_TOKENS + longest,
        yes_no=spec.choices == YES_NO,
        choices=[] if spec.choices == YES_NO else list(spec.choices),
        priority=Ask.Request.PRIORITY_BACKGROUND,
    )


def verdict_from_ros(answer: AnswerMsg) -> Verdict:
    """Return what a good answer to a watch's question says."""
    probability = float(answer.choice_probability)
    return Verdict(
        answer=answer.choice if answer.choice_valid else '',
        probability=None if math.isnan(probability) else probability,
        evidence_ns=time_from_ros(answer.header.stamp),
        source=answer,
    )


def event_to_ros(event: WatchEvent) -> WatchEventMsg:
    """Return the message of what a watch says."""
    verdict = event.verdict
    answer = verdict.source if verdict is not None else None
    message = WatchEventMsg(
        decided=time_to_ros(event.decided_ns),
        watch=event.watch,
        event_id=event.event_id,
        kind=int(event.kind),
        verdict=verdict.answer if verdict is not None else '',
        probability=_probability(verdict),
        text=event.text,
        question=event.question,
        duration_s=event.duration_s,
    )
    if isinstance(answer, AnswerMsg):
        message.header = answer.header
        message.frames = answer.frames
    return message


def state_to_ros(facts: WatchFacts) -> WatchStateMsg:
    """Return the message of how a watch does."""
    counts, verdict = facts.counts, facts.verdict
    answer = verdict.source if verdict is not None else None
    stats = answer.stats if isinstance(answer, AnswerMsg) else AnswerStats()
    return WatchStateMsg(
        spec=spec_to_ros(facts.spec),
        state=int(facts.phase),
        event_on=facts.event_on,
        event_id=facts.event_id,
        verdict=verdict.answer if verdict is not None else '',
        probability=_probability(verdict),
        evidence=time_to_ros(verdict.evidence_ns if verdict is not None else 0),
        blind_reason=int(facts.blindness),
        missed_share=counts.missed_share,
        message=facts.message,
        looks=counts.looks,
        unchanged=counts.unchanged,
        missed_camera=counts.missed[Blindness.CAMERA],
        missed_dark=counts.missed[Blindness.DARK],
        missed_busy=counts.missed[Blindness.BUSY],
        missed_error=counts.missed[Blindness.ERROR],
        unsure=counts.unsure,
        events=counts.events,
        still_on=counts.still_on,
        cooled_down=counts.cooled_down,
        look_s=facts.look_s,
        prompt_tokens=stats.prompt_tokens,
        cached_prompt_tokens=stats.cached_prompt_tokens,
    )


def states_to_ros(all_facts: Iterable[WatchFacts], ros_ns: int) -> WatchStatesMsg:
    """Return the message of how all watches do, at a ROS time."""
    return WatchStatesMsg(
        header=Header(stamp=time_to_ros(ros_ns)), watches=[state_to_ros(f) for f in all_facts]
    )


def _probability(verdict: Verdict | None) -> float:
    if verdict is None or verdict.probability is None:
        return math.nan
    return verdict.probability


def _is_float(name: str) -> bool:
    return name in RANGES and isinstance(RANGES[name][0], float)


def _short(value: float) -> float:
    """Return the number that was meant by one of 32 bits: 0.1, not 0.10000000149."""
    return float(f'{value:.7g}')
