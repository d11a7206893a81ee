"""The checkpoint of the shipped demo model, rebuilt from its ONNX files; needs no torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from support.onnx_weights import graph_files, read_weights

SHIPPED: Final = Path('edge_vlm_ros/demo/model')


def rebuild(folder: Path, to: Path) -> None:
    """Write model.safetensors, with float16 values exactly as shipped, and the other files."""
    from safetensors.numpy import save_file

    to.mkdir(parents=True, exist_ok=True)
    save_file(read_weights(graph_files(folder)), to / 'model.safetensors', {'format': 'pt'})
    for path in folder.glob('*.json'):
        shutil.copyfile(path, to / path.name)
