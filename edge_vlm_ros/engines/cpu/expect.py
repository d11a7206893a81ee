"""What a graph of the split layout has to declare, and the words for one that does not."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.cpu.runtime import Graph, TensorInfo


def misfit(graph: Graph, tensor: str, expected: str, found: str) -> ModelFileError:
    """Say which tensor of which file does not fit."""
    return ModelFileError(f'{graph.path}: {tensor}: expected {expected}, found {found}')


def declared_input(graph: Graph, name: str, *, rank: int) -> TensorInfo:
    """Return an input of a graph.

    Raises:
        ModelFileError: It has none of this name and rank, or of a type that numpy does not have.
    """
    info = graph.inputs.get(name)
    if info is None:
        raise misfit(graph, name, 'an input', f'inputs {", ".join(graph.inputs)}')
    if len(info.shape) != rank:
        raise misfit(graph, name, f'{rank} dimensions', f'{len(info.shape)}')
    known_dtype(graph, info)
    return info


def declared_output(graph: Graph, name: str) -> TensorInfo:
    """Return an output of a graph.

    Raises:
        ModelFileError: It has none of this name.
    """
    info = graph.outputs.get(name)
    if info is None:
        raise misfit(graph, name, 'an output', f'outputs {", ".join(graph.outputs)}')
    return info


def known_dtype(graph: Graph, info: TensorInfo) -> np.dtype[Any]:
    """Return numpy's type of a tensor.

    Raises:
        ModelFileError: It is none that this engine feeds.
    """
    if info.dtype is None:
        raise misfit(graph, info.name, 'float, float16, int64, int32 or bool', info.type_name)
    return info.dtype


def refuse_other_inputs(graph: Graph, known: set[str]) -> None:
    """Refuse a graph that wants what nobody here would feed.

    Raises:
        ModelFileError: It has an input beside the known ones.
    """
    others = [name for name in graph.inputs if name not in known]
    if others:
        raise misfit(graph, others[0], f'only inputs {", ".join(sorted(known))}', 'one more')
