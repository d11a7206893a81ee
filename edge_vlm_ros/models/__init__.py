"""Models: what is published for which chip, and where its files are on this machine."""

from edge_vlm_ros.models.catalogue import (
    Catalogue,
    ModelEntry,
    RemoteFile,
    SocMemory,
    load_catalogue,
)
from edge_vlm_ros.models.locate import (
    catalogue_of,
    default_model_dirs,
    find_model,
    is_path,
    model_folders,
)

__all__ = [
    'Catalogue',
    'ModelEntry',
    'RemoteFile',
    'SocMemory',
    'catalogue_of',
    'default_model_dirs',
    'find_model',
    'is_path',
    'load_catalogue',
    'model_folders',
]
