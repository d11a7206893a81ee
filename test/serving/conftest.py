"""Scripted models, and a tiny real one."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from support.asker import DEFAULTS, QUICK, Asker

from edge_vlm_ros.core import FrameSource, RawImage, StoredFrame
from edge_vlm_ros.serving import ModelSpec, VlmPipeline


@pytest.fixture
def scripted(tmp_path):
    """Write a script, `scripted(answers=[...], faults=[...])`, and return its ModelSpec."""
    count = iter(range(1000))

    def make(**script):
        path = tmp_path / f'script-{next(count)}.yaml'
        path.write_text(yaml.safe_dump(script))
        return ModelSpec('scripted', str(path))

    return make


@pytest.fixture
def open_scripted(scripted):
    """Open a pipeline on a script; closed after the test."""
    opened = []

    def make(settings=DEFAULTS, **script):
        opened.append(VlmPipeline.open(scripted(**script), settings=settings))
        return opened[-1]

    yield make
    for pipeline in opened:
        pipeline.close()


@pytest.fixture
def ask_process(scripted):
    """Start a model process on a script: `ask_process(faults=[...])`; ended after the test."""
    askers = []

    def start(process_settings=QUICK, settings=DEFAULTS, spec=None, options=None, **script):
        spec = spec or scripted(**script)
        askers.append(Asker(spec, process_settings, settings, **(options or {})))
        return askers[-1]

    yield start
    for asker in askers:
        asker.process.close()


@pytest.fixture(scope='session')
def tiny_spec(tmp_path_factory):
    """A tiny random model for the CPU engine, with chunks so short that prompts take several."""
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.make import make_tiny_model

    folder = make_tiny_model(tmp_path_factory.mktemp('tiny'))
    return ModelSpec('cpu', str(folder), options={'prefill_chunk': 16, 'threads': 1})


@pytest.fixture(scope='session')
def tiny_qwen_spec(tmp_path_factory):
    """A tiny random Qwen2-VL for the CPU engine: its real family, positions on three axes."""
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.qwen2_vl import make_tiny_qwen2_vl

    folder = make_tiny_qwen2_vl(tmp_path_factory.mktemp('qwen'))
    # However busy the machine is when it loads, images are of one size.
    options = {
        'prefill_chunk': 16,
        'threads': 1,
        'context_tokens': 400,
        'max_pixels': 1024 * 14**2,
    }
    return ModelSpec('cpu', str(folder), options=options)


@pytest.fixture(scope='session')
def smolvlm_spec(tmp_path_factory):
    """A tiny random SmolVLM for the CPU engine, with chunks that end inside tiles."""
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_smolvlm.make import make_tiny_smolvlm

    folder = make_tiny_smolvlm(tmp_path_factory.mktemp('smolvlm'))
    options = {'prefill_chunk': 18, 'threads': 1, 'max_tiles': 4, 'context_tokens': 400}
    return ModelSpec('cpu', str(folder), options=options)


def make_frame(value=128, *, stamp_ns=1, side=8, camera='front', received_ns=0):
    """Make a frame of one grey value (0 to 255), or of the pixels given."""
    pixels = np.broadcast_to(np.asarray(value, np.uint8), (side, side, 3))
    image = RawImage('rgb8', side, side, 3 * side, pixels.tobytes())
    return StoredFrame(FrameSource(camera, '/image', 'optical'), stamp_ns, image, received_ns)


@pytest.fixture
def frame():
    """Make frames: `frame(grey_value, stamp_ns=...)`."""
    return make_frame
