"""The embedding table in every form it is shipped in."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.axera.embedding import EmbeddingTable
from edge_vlm_ros.engines.bf16 import to_bf16

ROWS, WIDTH = 20, 6


@pytest.fixture
def values():
    return np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype(np.float32)


def saved(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize('kind', ['float32', 'float16', 'bits', 'void', 'raw'])
def test_rows_come_as_bfloat16_whatever_the_file(tmp_path, values, kind):
    expected = to_bf16(values)
    if kind == 'raw':
        path = tmp_path / 'model.embed_tokens.weight.bfloat16.bin'
        expected.tofile(path)
    elif kind == 'void':
        path = saved(tmp_path / 'table.npy', values.astype(ml_dtypes.bfloat16))
    elif kind == 'bits':
        path = saved(tmp_path / 'table.npy', expected)
    else:
        values = values.astype(kind)
        expected = to_bf16(values.astype(np.float32))
        path = saved(tmp_path / 'table.npy', values)
    table = EmbeddingTable(path, WIDTH)
    assert table.rows == ROWS
    ids = np.array([3, 19, 3, 0])
    found = table.look_up(ids)
    np.testing.assert_array_equal(found, expected[ids])
    found[0] = 0  # in memory of its own: the next one sees the file again
    np.testing.assert_array_equal(table.look_up(ids), expected[ids])


def test_the_table_stays_on_disk(tmp_path):
    path = tmp_path / 'table.npy'
    np.lib.format.open_memmap(path, 'w+', np.float32, (200_000, 256))[:] = 0  # 205 MB
    table = EmbeddingTable(path, 256)
    before = resident_bytes()
    table.look_up(np.arange(8))
    assert resident_bytes() - before < 20e6
    table.close()
    table.close()


def resident_bytes():
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.zeros((ROWS, WIDTH + 1), np.float32), r'width 6, .*found \[20, 7\]'),
        (np.zeros(ROWS * WIDTH, np.float32), r'found \[120\]'),
        (np.zeros((ROWS, WIDTH), np.int64), 'float32, float16 or bfloat16, found int64'),
        (np.zeros((0, WIDTH), np.float32), r'found \[0, 6\]'),
    ],
)
def test_a_table_of_another_model_is_refused(tmp_path, array, message):
    with pytest.raises(ModelFileError, match=message):
        EmbeddingTable(saved(tmp_path / 'table.npy', array), WIDTH)


def test_a_raw_table_of_another_width_is_refused(tmp_path):
    path = tmp_path / 'table.bfloat16.bin'
    path.write_bytes(bytes(2 * WIDTH * 3 + 2))
    with pytest.raises(ModelFileError, match='38 bytes are no whole rows of 6'):
        EmbeddingTable(path, WIDTH)


@pytest.mark.parametrize('name', ['absent.npy', 'absent.bin'])
def test_a_missing_table_is_named(tmp_path, name):
    with pytest.raises(ModelFileError, match=f'{name}: no such file'):
        EmbeddingTable(tmp_path / name, WIDTH)


def test_a_damaged_table_is_refused(tmp_path):
    path = tmp_path / 'table.npy'
    path.write_bytes(b'no array at all')
    with pytest.raises(ModelFileError, match='cannot be read as an array'):
        EmbeddingTable(path, WIDTH)
