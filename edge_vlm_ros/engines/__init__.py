"""Engines: one folder a chip, all behind the contract in `base`."""

from edge_vlm_ros.engines.base import ChosenToken, Engine, KVCache, Logits, NextToken
from edge_vlm_ros.engines.registry import engine_chips, open_engine, require_engine

__all__ = [
    'ChosenToken',
    'Engine',
    'KVCache',
    'Logits',
    'NextToken',
    'engine_chips',
    'open_engine',
    'require_engine',
]
