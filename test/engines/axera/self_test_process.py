"""A process that opens a set in place beside the stand-in for axengine, and says what came of it.

Arguments: folder of the set, its layout, the stub's options as JSON. The environment names the
stub's folder, or nothing: then the stand-in computes without a C library.
"""

import json
import logging
import os
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from support.axera import sets
from support.axera.plain import stack_shapes
from support.axera.stub.compute import Stub
from support.axera.weights import tiny_weights

from edge_vlm_ros.engines.axera.board import Board
from edge_vlm_ros.engines.axera.library import Library
from edge_vlm_ros.engines.axera.portable import PortableBackend
from edge_vlm_ros.engines.axera.runtime import Session, open_device
from edge_vlm_ros.engines.axera.self_test import open_in_place
from edge_vlm_ros.engines.base import never
from edge_vlm_ros.engines.bf16 import to_bf16


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append((record.levelname, record.getMessage()))


def listen():
    kept = Kept()
    log = logging.getLogger('edge_vlm_ros.engines.axera.self_test')
    log.setLevel(logging.INFO)
    log.addHandler(kept)
    return kept.said


def open_stub(options):
    folder = os.environ.get('EDGE_VLM_AX_LIBRARY')
    if not folder:
        return None
    stub = Stub(Path(folder))
    stub.set(**options)
    stub.compute()
    return stub


def conversation(backend, shapes):
    """Take turns, some from unaligned starts, one after a truncation; give all logits."""
    random = np.random.default_rng(1)
    found = []
    for row, tokens in ((0, 16), (16, 5), (21, 1), (22, 1), (23, 9), (32, 16), (7, 3), (10, 1)):
        embeds = to_bf16(random.standard_normal((tokens, shapes.hidden), np.float32))
        positions = np.arange(row, row + tokens, dtype=np.uint32)
        group = next((g for g in shapes.prefill if g.history >= row), None)
        if tokens > 1 and group is not None:
            backend.prefill(group, embeds, positions, row, never)
        else:
            for i in range(tokens):
                backend.step(shapes.decode[0], embeds[i], positions[i : i + 1], row + i)
        found.append(backend.head().copy())
    return np.array(found)


def try_out(folder, layout):
    """Open the set in place; if that works, compare all layers with axengine's own way."""
    device = open_device(layout.chip)
    files, shapes = sets.model_files(folder, layout.chip), stack_shapes(layout, tiny_weights())
    loaded = []

    def open_portable(some):
        return PortableBackend(lambda path: Session(device, path), files, some)

    trial = open_in_place(
        files, shapes, open_portable, lambda: Board(Library()), lambda: loaded.append(1)
    )
    backend = trial.backend
    if backend is None:
        return {'rows': '', 'loaded': len(loaded)}
    with closing(backend), closing(open_portable(shapes)) as portable:
        is_equal = np.array_equal(conversation(backend, shapes), conversation(portable, shapes))
    rows = type(backend._rows).__name__
    slots = backend.takes_slots
    return {'rows': rows, 'loaded': len(loaded), 'is_equal': is_equal, 'takes_slots': slots}


def main():
    folder, name, options = sys.argv[1:]
    said, stub = listen(), open_stub(json.loads(options))
    result = try_out(Path(folder), sets.TINY_LAYOUTS[name])
    left = {key: stub.count(key) if stub else 0 for key in ('blocks', 'handles')}
    print(json.dumps({**result, **left, 'log': said}))


main()
