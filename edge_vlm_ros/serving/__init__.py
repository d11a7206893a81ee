"""The parts joined: a backend in this process, or the same one in a process of its own.

Names load when they are asked for: a process that only talks to a model process
(`edge_vlm_ros.serving.process`) has no use for tokenizers, image libraries or engines.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vlm_ros.serving.backend import Backend, check_spec, open_backend
    from edge_vlm_ros.serving.model_info import (
        ChipModelInfo,
        ModelInfo,
        ModelSpec,
        RemoteModelInfo,
        StageCosts,
    )
    from edge_vlm_ros.serving.pipeline import VlmPipeline
    from edge_vlm_ros.serving.process import (
        EnginePhase,
        EngineState,
        LoadProgress,
        ModelProcess,
    )
    from edge_vlm_ros.serving.remote.pipeline import RemotePipeline
    from edge_vlm_ros.serving.settings import ServingSettings
    from edge_vlm_ros.serving.stream import AnswerStream

_MODULES = {
    'AnswerStream': 'stream',
    'Backend': 'backend',
    'ChipModelInfo': 'model_info',
    'EnginePhase': 'process',
    'EngineState': 'process',
    'LoadProgress': 'process',
    'ModelInfo': 'model_info',
    'ModelProcess': 'process',
    'ModelSpec': 'model_info',
    'RemoteModelInfo': 'model_info',
    'RemotePipeline': 'remote.pipeline',
    'ServingSettings': 'settings',
    'StageCosts': 'model_info',
    'VlmPipeline': 'pipeline',
    'check_spec': 'backend',
    'open_backend': 'backend',
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)


__all__ = [
    'AnswerStream',
    'Backend',
    'ChipModelInfo',
    'EnginePhase',
    'EngineState',
    'LoadProgress',
    'ModelInfo',
    'ModelProcess',
    'ModelSpec',
    'RemoteModelInfo',
    'RemotePipeline',
    'ServingSettings',
    'StageCosts',
    'VlmPipeline',
    'check_spec',
    'open_backend',
]
