"""A tiny random model, written once a session, and engines that run it."""

import pytest

from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model


@pytest.fixture(scope='session')
def tiny_folder(tmp_path_factory):
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.make import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='session')
def tiny_files(tiny_folder):
    return find_model('cpu', str(tiny_folder))


@pytest.fixture(scope='session')
def smolvlm_folder(tmp_path_factory):
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_smolvlm.make import make_tiny_smolvlm

    return make_tiny_smolvlm(tmp_path_factory.mktemp('smolvlm'))


@pytest.fixture
def tiny_engine(tiny_files):
    engine = open_engine('cpu', tiny_files, options={'threads': 1})
    yield engine
    engine.close()


@pytest.fixture(scope='session')
def shared_tiny_engine(tiny_files):
    """For laws that try many prompts; each empties the cache first."""
    engine = open_engine('cpu', tiny_files, options={'threads': 1})
    yield engine
    engine.close()
