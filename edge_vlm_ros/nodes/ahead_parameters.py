"""The parameters of what is made ready before anybody asks: `ahead_mode` and `ahead.*`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.nodes.declaring import SettingsError, filled, value_of
from edge_vlm_ros.scheduling import WindowSettings
from edge_vlm_ros.vision.change import THRESHOLD

if TYPE_CHECKING:
    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

OFF, ENCODE, PREFILL = 'off', 'encode', 'prefill'
MODES = (OFF, ENCODE, PREFILL)

JOINED = '+'
"""Between the cameras of one watch; no name holds it."""


@dataclass(frozen=True, slots=True)
class AheadSettings:
    """What is made ready while nobody asks; as it stands here it is by default.

    Attributes:
        mode: 'off', 'encode' (features of the vision tower) or 'prefill' (and their KV rows).
        frames: Of a window; 1 = stills.
        keyframes: First frames of a window that stay when it begins anew.
        watches: Cameras, those whose frames stand in one prompt together; empty = the first one.
        min_period_s: No camera has its changes followed faster, unless a conversation is live.
        max_period_s: After so long a frame is taken whether or not a change is seen; 0 = never.
        live_s: So long after its last answer, or after a hint, a conversation is live.
        duty: Share of the chip's time that work ahead may take.
        threshold: Difference within a part of the picture that counts as a change, of 255.
        max_temperature_c: Above it nothing is made ready; 0 = whatever the temperature.
    """

    mode: str = OFF
    frames: int = 1
    keyframes: int = 0
    watches: tuple[tuple[str, ...], ...] = ()
    min_period_s: float = 1.0
    max_period_s: float = 60.0
    live_s: float = 30.0
    duty: float = 1.0
    threshold: float = THRESHOLD
    max_temperature_c: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is made ready at all."""
        return self.mode != OFF

    @property
    def live_ns(self) -> int:
        """How long a conversation is live, nanoseconds."""
        return round(self.live_s * NS_PER_S)

    def window(self) -> WindowSettings:
        """Return how each watch's window grows."""
        return WindowSettings(
            frames=self.frames,
            keyframes=self.keyframes,
            min_period_ns=round(self.min_period_s * NS_PER_S),
            max_period_ns=round(self.max_period_s * NS_PER_S),
            threshold=self.threshold,
        )


def declare_ahead(table: ParameterTable) -> None:
    """Declare the parameters."""
    default = AheadSettings()
    table.declare(
        'ahead_mode',
        default.mode,
        'What is made ready while nobody asks, so that a question pays for its own words. off: '
        "nothing. encode: the vision tower's features of what has changed. prefill: these and "
        'their part of the KV cache. The answers are the same.',
        choices=MODES,
        false_is=OFF,
        read_only=True,
    )
    table.declare(
        'ahead.frames',
        default.frames,
        'Frames of a window. 1: a question that says no time is about the newest frame. More: it '
        'is about a window of up to so many that show what has changed, the newest last.',
        read_only=True,
        low=1,
        high=64,
    )
    table.declare(
        'ahead.keyframes',
        default.keyframes,
        'The first frames of a window that are pinned: they stay when a full window begins anew '
        'with its newest, as the view that later ones are compared with. 0: none.',
        read_only=True,
        low=0,
        high=62,
    )
    table.declare(
        'ahead.cameras',
        [''],
        'Cameras that are watched; "front+rear": their frames in one prompt, for questions that '
        'name these in this order. The one asked about last is made ready whole, the first where '
        'nobody has asked lately; of the others the features. Empty: the first camera.',
        read_only=True,
    )
    _declare_times(table, default)
    _declare_bounds(table, default)


def _declare_times(table: ParameterTable, default: AheadSettings) -> None:
    table.declare(
        'ahead.min_period_s',
        default.min_period_s,
        's; a change of a camera is followed no sooner than so long after the last one, unless a '
        'conversation is live.',
        read_only=True,
        low=0.0,
        high=3600.0,
    )
    table.declare(
        'ahead.max_period_s',
        default.max_period_s,
        's; after so long a new frame is taken although no change was seen; 0: never.',
        read_only=True,
        low=0.0,
        high=86400.0,
    )
    table.declare(
        'ahead.live_s',
        default.live_s,
        's; so long after its last answer a conversation is live: its next turn is made ready, '
        'and changes are followed at once. So they are after a hint.',
        read_only=True,
        low=0.0,
        high=3600.0,
    )


def _declare_bounds(table: ParameterTable, default: AheadSettings) -> None:
    table.declare(
        'ahead.duty',
        default.duty,
        "Share of the chip's time that work ahead may take while nobody asks.",
        read_only=True,
        low=0.01,
        high=1.0,
    )
    table.declare(
        'ahead.threshold',
        default.threshold,
        'Mean difference within a hundredth of the picture that counts as a change, of 255; more '
        'for a camera with much noise.',
        read_only=True,
        low=1.0,
        high=255.0,
    )
    table.declare(
        'ahead.max_temperature_c',
        default.max_temperature_c,
        "C; nothing is made ready while one of the machine's thermal zones is above; 0: whatever "
        'the temperature.',
        read_only=True,
        low=0.0,
        high=150.0,
    )


def read_ahead(node: Node, cameras: Sequence[str]) -> AheadSettings:
    """Read what is made ready.

    Args:
        node: Whose parameters.
        cameras: The node's, in their order.

    Raises:
        SettingsError: A value makes no sense, or a camera is none of the node's.
    """
    watches = tuple(_watch(text, cameras) for text in filled(value_of(node, 'ahead.cameras')))
    if len(set(watches)) != len(watches):
        raise SettingsError(f'ahead.cameras: a watch stands there twice: {watches}')
    return AheadSettings(
        mode=value_of(node, 'ahead_mode'),
        frames=value_of(node, 'ahead.frames'),
        keyframes=value_of(node, 'ahead.keyframes'),
        watches=watches or tuple((name,) for name in cameras[:1]),
        min_period_s=value_of(node, 'ahead.min_period_s'),
        max_period_s=value_of(node, 'ahead.max_period_s'),
        live_s=value_of(node, 'ahead.live_s'),
        duty=value_of(node, 'ahead.duty'),
        threshold=value_of(node, 'ahead.threshold'),
        max_temperature_c=value_of(node, 'ahead.max_temperature_c'),
    )


def _watch(text: str, cameras: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(JOINED))
    unknown = [name for name in names if name not in cameras]
    if unknown:
        known = ', '.join(cameras) or 'none'
        raise SettingsError(f'ahead.cameras: no camera {unknown[0]!r}; there are: {known}')
    if len(set(names)) != len(names):
        raise SettingsError(f'ahead.cameras: {text!r} names a camera twice')
    return names
