"""The pipeline in a process of its own, so that no chip library can stop what asks it."""

from edge_vlm_ros.serving.process.client import ModelProcess
from edge_vlm_ros.serving.process.messages import EnginePhase, EngineState, LoadProgress
from edge_vlm_ros.serving.process.settings import ProcessSettings

__all__ = ['EnginePhase', 'EngineState', 'LoadProgress', 'ModelProcess', 'ProcessSettings']
