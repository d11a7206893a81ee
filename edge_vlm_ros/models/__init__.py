"""Models: what is published for which chip, and where its files are on this machine."""

from edge_vlm_ros.models.catalogue import (
    Catalogue,
    ModelEntry,
    RemoteFile,
    load_catalogue,
)
from edge_vlm_ros.models.locate import default_model_dirs, find_model, is_path

__all__ = [
    'Catalogue',
    'ModelEntry',
    'RemoteFile',
    'default_model_dirs',
    'find_model',
    'is_path',
    'load_catalogue',
]
