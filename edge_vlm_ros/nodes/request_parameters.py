"""What a request may leave open: read again for every request.

So a change at run time holds from the next question on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edge_vlm_ros.core import SamplingOptions
from edge_vlm_ros.core.request_limits import MAX_SYSTEM_PROMPT_BYTES
from edge_vlm_ros.nodes.declaring import SettingsError, shown, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a request gets where it leaves a field at 0.

    Attributes:
        max_frames: Frames of a clip.
        max_age_s: Age of the newest frame above which a question is refused; 0 = any age.
        frame_wait_s: Longest wait for a frame that is fresh enough; 0 = none.
        timeout_s: Time to answer; 0 = no limit.
        max_tokens: Answer tokens; 0 = as many as the context holds.
        system_prompt: '' = the model family's own.
        max_repeats: So many of the same token in a row end an answer as a loop; 0 = no loop does.
    """

    max_frames: int
    max_age_s: float
    frame_wait_s: float
    timeout_s: float
    max_tokens: int
    system_prompt: str
    max_repeats: int


class RequestParameters(Protocol):
    """The parameters that a request may leave to the node; read again for each."""

    def defaults(self) -> RequestDefaults:
        """Return what a request gets where it leaves a field at 0."""
        ...

    def preset(self, name: str) -> str:
        """Return the question of a preset; '' = the default one.

        Raises:
            EdgeVlmError: There is no such preset, or none at all yet.
        """
        ...


def declare_requests(table: ParameterTable) -> None:
    """Declare what requests may leave open, and judge it together.

    Raises:
        SettingsError: What was given for one at the start does not fit.
    """
    table.declare(
        'max_frames',
        8,
        'Frames of a clip, where a request says 0; a model that takes fewer gets fewer, and one '
        'that would take long for them here.',
        low=1,
        high=256,
    )
    table.declare(
        'max_age_s',
        2.0,
        's; where a request says 0: a newest frame older than this is refused with '
        'ERROR_STALE_FRAME; 0: any age will do.',
        low=0.0,
        high=1e9,
    )
    table.declare(
        'frame_wait_s',
        1.0,
        's; how long a request waits for a frame where there is none or only too old ones, within '
        'its own timeout; then it is refused with ERROR_NO_FRAME or ERROR_STALE_FRAME; '
        '0: at once. At most timeout_s, where that is not 0.',
        low=0.0,
        high=3600.0,
    )
    table.declare(
        'timeout_s',
        120.0,
        's; where a request says 0: the answer ends after so long with FINISH_DEADLINE; '
        '0: no limit.',
        low=0.0,
        high=1e6,
    )
    table.declare(
        'max_tokens',
        256,
        'Tokens of an answer at most, where a request says 0; 0: as many as the context holds.',
        low=0,
        high=1_000_000,
    )
    table.declare(
        'max_repeats',
        SamplingOptions().max_repeats,
        'So many of the same token in a row, or as long a loop of more, end an answer with '
        'ERROR_BAD_OUTPUT: a model that has lost its way, or a chip whose scores are no numbers; '
        '0: no loop ends it.',
        low=0,
        high=1_000_000,
        check=_problem_of_repeats,
    )
    table.declare(
        'system_prompt',
        '',
        "Who the model is to be, where a request says nothing; empty: the model family's own.",
        check=_problem_of_system_prompt,
    )
    table.together = _judge_times


def read_request_defaults(node: Node) -> RequestDefaults:
    """Read what requests may leave open, as it is now."""
    return RequestDefaults(
        max_frames=value_of(node, 'max_frames'),
        max_age_s=value_of(node, 'max_age_s'),
        frame_wait_s=value_of(node, 'frame_wait_s'),
        timeout_s=value_of(node, 'timeout_s'),
        max_tokens=value_of(node, 'max_tokens'),
        max_repeats=value_of(node, 'max_repeats'),
        system_prompt=value_of(node, 'system_prompt'),
    )


def _problem_of_repeats(repeats: int) -> str:
    return '1 would end every answer; it is 0 or at least 2' if repeats == 1 else ''


def _problem_of_system_prompt(text: str) -> str:
    return length_problem(text, MAX_SYSTEM_PROMPT_BYTES)


def length_problem(text: str, limit: int) -> str:
    """Say that a text is longer than a limit in UTF-8 bytes; '' = it is not."""
    size = len(text.encode('utf-8', 'replace'))
    return f'{shown(text)} has {size} bytes, the limit is {limit}' if size > limit else ''


def _judge_times(value: Callable[[str], Any]) -> None:
    """Judge whether a request that waits for a frame in vain can still say so.

    Raises:
        SettingsError: Its deadline would always come first, and hide the cause.
    """
    frame_wait_s, timeout_s = value('frame_wait_s'), value('timeout_s')
    if 0 < timeout_s < frame_wait_s:
        raise SettingsError(
            f'frame_wait_s is {frame_wait_s} and timeout_s {timeout_s}: the deadline would end '
            'every request that waits for a frame before it can say that none came; frame_wait_s '
            'is at most timeout_s, or timeout_s is 0'
        )
