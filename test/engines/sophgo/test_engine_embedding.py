"""Embeddings from a table on the host's disk, for builds without embedding nets."""

import numpy as np
import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import run_on_table
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.bf16 import to_bf16
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel
from edge_vlm_ros.engines.sophgo.contract import read_contract
from edge_vlm_ros.engines.sophgo.embedding import DiskEmbedding

NAME = 'internvl3_history_bf16_bm1688'


class Sink:
    """Takes what is written to device memory."""

    def __init__(self):
        self.values = None

    def write(self, values):
        self.values = values


@pytest.fixture
def shapes(bmodel):
    return read_contract(read_bmodel(bmodel(NAME)).nets).decoder


def test_rows_of_the_table_are_sent_as_they_are(shapes, tmp_path):
    table = np.arange(5 * shapes.hidden, dtype=np.uint16).reshape(5, -1)
    table.tofile(tmp_path / 'embedding.bin')
    step, prompt = Sink(), Sink()
    embedding = DiskEmbedding(tmp_path / 'embedding.bin', shapes, step)
    assert embedding.vocab_size == 5
    embedding.prompt(np.array([3, 0]), prompt)
    assert (prompt.values == table[[3, 0]].reshape(-1)).all()
    embedding.step(4)
    assert (step.values == table[4]).all()


@pytest.mark.parametrize('content', [None, b'', bytes(100)])
def test_a_table_that_is_missing_or_no_table_is_refused(shapes, tmp_path, content):
    path = tmp_path / 'embedding.bin'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r'embedding\.bin: '):
        DiskEmbedding(path, shapes, Sink())


@pytest.mark.emulator
@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_prompt_from_the_table_agrees_with_the_reference(bmodel, tmp_path):
    weights = FIXTURES[NAME].load_weights()['language_model.model.embed_tokens.weight']
    path = tmp_path / 'embedding.bin'
    to_bf16(weights).tofile(path)
    outcome = emulator.call(
        'bm1688', run_on_table, NAME, str(bmodel(NAME)), str(path), time_limit_s=400.0
    )
    for point in outcome.points:
        assert point.cosine >= 0.999, point
        assert point.token == point.expected or point.gap < 0.2, point
    assert not {'embedding', 'embedding_cache'} & set(outcome.step['launches'])
