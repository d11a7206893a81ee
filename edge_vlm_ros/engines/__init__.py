"""Engines: one folder a chip, all behind the contract in `base`."""

from edge_vlm_ros.engines.base import (
    ChosenToken,
    Engine,
    KVCache,
    Logits,
    NextToken,
    OnLoaded,
    StopCheck,
    never,
)
from edge_vlm_ros.engines.registry import (
    engine_chips,
    inspect_model,
    open_engine,
    require_engine,
)

__all__ = [
    'ChosenToken',
    'Engine',
    'KVCache',
    'Logits',
    'NextToken',
    'OnLoaded',
    'StopCheck',
    'engine_chips',
    'inspect_model',
    'never',
    'open_engine',
    'require_engine',
]
