"""How an Axera chip is driven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_vlm_ros.core import Options, count
from edge_vlm_ros.engines.axera.providers import ProviderName

BackendName: TypeAlias = Literal['auto', 'in_place', 'portable']


@dataclass(frozen=True, slots=True)
class AxeraOptions(Options):
    """What may be chosen.

    Attributes:
        backend: 'auto' = in place where a trial at load gives what axengine gives, else portable;
            'in_place' or 'portable' = that one or an error.
        kv_slots: Prompts that the KV cache may hold side by side, each after the first in memory
            of its own once it is used (73 MB for InternVL3-2B); 0 = 2 where the chip is known to
            have room to spare for that, else 1.
        provider: 'chip' = the one on this board, 'card' = one behind PCIe, 'auto' = what is there.
    """

    backend: BackendName = 'auto'
    kv_slots: int = count()
    provider: ProviderName = 'auto'
