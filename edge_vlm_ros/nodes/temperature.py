"""Whether the machine is too hot for work that nobody waits for."""

from __future__ import annotations

from pathlib import Path

from edge_vlm_ros.core import NS_PER_S

ZONES = Path('/sys/class/thermal')
"""Linux: `thermal_zone*/temp` holds thousandths of a degree Celsius.

Source: kernel documentation, Documentation/driver-api/thermal/sysfs-api.rst.
"""

READ_EVERY_NS = NS_PER_S
COOLER_C = 3.0
"""So far below the limit it must be before work begins again, or it would begin and end all the
time."""


class TemperatureGate:
    """Reads the hottest thermal zone, at most once a second.

    Args:
        max_c: Degrees Celsius above which it is too hot; 0 = it never is, and nothing is read.
        zones: Where the thermal zones are.
    """

    def __init__(self, max_c: float, zones: Path = ZONES) -> None:
        self._max_c = max_c
        self._zones = zones
        self._read_ns = -READ_EVERY_NS
        self._is_too_hot = False
        self.hottest_c: float | None = None
        """As last read; None = it was not, or no zone can be read."""

    def is_too_hot(self, now_ns: int) -> bool:
        """Return whether it is; False where no zone can be read (`problem` says so).

        Args:
            now_ns: Steady time, nanoseconds.
        """
        if not self._max_c:
            return False
        if now_ns - self._read_ns >= READ_EVERY_NS:
            self._read_ns = now_ns
            self.hottest_c = self._read()
            limit_c = self._max_c - COOLER_C if self._is_too_hot else self._max_c
            self._is_too_hot = self.hottest_c is not None and self.hottest_c > limit_c
        return self._is_too_hot

    @property
    def problem(self) -> str:
        """Say what keeps work ahead from being done, or the temperature from being known."""
        if not self._max_c or self._read_ns < 0:
            return ''
        if self.hottest_c is None:
            return f'no temperature can be read in {self._zones}: ahead.max_temperature_c is off'
        if self._is_too_hot:
            return f'{self.hottest_c:.0f} C, the limit is {self._max_c:.0f} C: paused'
        return ''

    def _read(self) -> float | None:
        found = map(_degrees, self._zones.glob('thermal_zone*/temp'))
        return max((each for each in found if each is not None), default=None)


def _degrees(file: Path) -> float | None:
    """Read one zone; None = it is asleep or broken, as some are, and says nothing."""
    try:
        return int(file.read_text()) / 1000
    except (OSError, ValueError):
        return None
