"""How an Axera chip is driven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_vlm_ros.core import Options

BackendName: TypeAlias = Literal['auto', 'in_place', 'portable']


@dataclass(frozen=True, slots=True)
class AxeraOptions(Options):
    """What may be chosen.

    Attributes:
        backend: 'auto' = in place where a trial at load gives what axengine gives, else portable;
            'in_place' or 'portable' = that one or an error.
    """

    backend: BackendName = 'auto'
