"""How a camera does, judged from numbers: free of ROS."""

from __future__ import annotations

from dataclasses import dataclass

QUIET_AFTER_S = 0.8
"""Silence that is worth a warning: with diagnostics once a second, it is reported within 2 s."""

QUIET_PERIODS = 3.0
"""A slow camera may be silent for so many of its periods."""

SETTLE_S = 2.0
"""Time a new subscription has to find its publisher before its rate is judged."""

LOSS_HINT = (
    'Images above 512 KB do not fit the default shared memory of Fast DDS and are lost without an '
    'error: start the camera with FASTDDS_DEFAULT_PROFILES_FILE (Humble and Jazzy: '
    "FASTRTPS_DEFAULT_PROFILES_FILE) set to this package's config/fastdds_shm.xml, or use "
    'compressed transport'
)


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """One camera in numbers, for diagnostics and for error messages.

    Attributes:
        name: The camera's.
        topic: Fully resolved.
        transport: 'raw' or 'compressed'.
        reliability: What the subscription asks for: 'best_effort' or 'reliable'.
        min_fps: Fewer frames a second are worth a warning; 0 = any rate will do.
        publishers: On the topic, matching or not.
        incompatible: The QoS policy that kept a publisher from matching; '' = none did.
        fps: Frames that came in the last seconds, a second.
        period_s: Usual time between two frames; 0 = not known.
        age_s: ROS time since the newest frame's stamp; 0 = no frame.
        silence_s: Steady time since the last frame, or since the subscription.
        watched_s: Steady time since the subscription.
        received: Frames since the subscription.
        dropped: Frames that made room for newer ones, came late or were not kept (`buffer.fps`).
        kept: Frames in the buffer.
        kept_bytes: Their bytes.
    """

    name: str
    topic: str
    transport: str = 'raw'
    reliability: str = 'best_effort'
    min_fps: float = 1.0
    publishers: int = 0
    incompatible: str = ''
    fps: float = 0.0
    period_s: float = 0.0
    age_s: float = 0.0
    silence_s: float = 0.0
    watched_s: float = 0.0
    received: int = 0
    dropped: int = 0
    kept: int = 0
    kept_bytes: int = 0

    @property
    def problem(self) -> str:
        """What is wrong, for people: what was seen and who can act; '' = all is well."""
        if self.is_quiet:
            return f'{self._silence()}: {self._cause()}'
        if self.watched_s > SETTLE_S and self.fps < self.min_fps:
            return f'only {self.fps:.1f} frames a second come on {self.topic}: {self._cause()}'
        return ''

    @property
    def is_quiet(self) -> bool:
        """Whether frames have stopped coming, or never came."""
        if not self.received:
            return True
        return self.silence_s > max(QUIET_AFTER_S, QUIET_PERIODS * self.period_s)

    def _silence(self) -> str:
        if not self.received:
            return f'no image has come on {self.topic}'
        return f'no image has come on {self.topic} for {self.silence_s:.1f} s'

    def _cause(self) -> str:
        if not self.publishers:
            return 'nobody publishes there (is the camera on, and its topic this one?)'
        if self.incompatible:
            return (
                f'its publisher offers another {self.incompatible} than the {self.reliability} '
                f'asked for (parameter cameras.{self.name}.qos.reliability)'
            )
        if not self.received and self.watched_s <= SETTLE_S:
            return 'its publisher has just been found'
        return f'somebody publishes there, but almost nothing arrives. {LOSS_HINT}'
