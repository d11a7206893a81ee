"""The environment of every process that a test starts: this process's own, and changes to it.

Who starts a process says what differs, never the whole: a copy that is kept is old by the time it
is used, and what was set since (a test's ROS domain) is lost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import pytest  # the benchmarks, which take this module, too, run without it

Changes: TypeAlias = Mapping[str, str | None]
"""Variables by name; None takes one away."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_FASTDDS_PROFILE: Final = _ROOT / 'config' / 'fastdds_shm.xml'
_FAST_DDS_2_DISTROS: Final = {'humble', 'iron', 'jazzy'}


def environment(*changes: Changes) -> dict[str, str]:
    """Return the environment of this process as it is now, with changes; the last ones win."""
    variables: dict[str, str | None] = dict(os.environ)
    for change in changes:
        variables.update(change)
    return {name: value for name, value in variables.items() if value is not None}


def apply(changes: Changes, variables: pytest.MonkeyPatch) -> None:
    """Change the environment of this process, until the end of a test."""
    for name, value in changes.items():
        if value is None:
            variables.delenv(name, raising=False)
        else:
            variables.setenv(name, value)


def on_domain(domain: int) -> Changes:
    """Return what keeps a process on a ROS domain, on this machine only."""
    distro = os.environ.get('ROS_DISTRO', '')
    profile = str(_FASTDDS_PROFILE)
    return {
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_LOCALHOST_ONLY': '1' if distro == 'humble' else None,
        'FASTDDS_DEFAULT_PROFILES_FILE': profile,
        'FASTRTPS_DEFAULT_PROFILES_FILE': profile if distro in _FAST_DDS_2_DISTROS else None,
    }
