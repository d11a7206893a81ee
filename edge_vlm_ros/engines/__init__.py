"""Engines: one folder a chip, all behind the contract in `base`."""

from edge_vlm_ros.engines.base import (
    ChosenToken,
    Engine,
    KVCache,
    Logits,
    NextToken,
    OnLoaded,
    StopCheck,
    ignore_progress,
    never,
)
from edge_vlm_ros.engines.registry import (
    engine_options,
    inspect_model,
    known_tokens,
    open_engine,
)

__all__ = [
    'ChosenToken',
    'Engine',
    'KVCache',
    'Logits',
    'NextToken',
    'OnLoaded',
    'StopCheck',
    'engine_options',
    'ignore_progress',
    'inspect_model',
    'known_tokens',
    'never',
    'open_engine',
]
