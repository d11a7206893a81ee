"""Bmodels that mean harm, or were damaged on their way: refused, at once, as damaged files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from support.sophgo.fixtures import FOLDER

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel

NAMES = ['internvl3_static_bf16_bm1684x', 'mllama_convert_bf16_bm1684x']
ROUNDS = 300


def test_tables_that_refer_to_one_another_thousands_of_times_are_refused():
    # 4 kB: each vector of nets, stages and tensors has 200 entries, and all name the same tables.
    with pytest.raises(ModelFileError, match=r'alias_200\.bmodel: the description .* is damaged'):
        read_bmodel(FOLDER / 'alias_200.bmodel')


@pytest.mark.parametrize('name', NAMES)
def test_law_a_damaged_description_is_read_or_refused(bmodel, tmp_path, name):
    whole = bmodel(name).read_bytes()
    (flat_bytes,) = struct.unpack_from('<I', whole, 8)
    random = np.random.default_rng(20)
    path = tmp_path / 'damaged.bmodel'
    messages = []
    for _ in range(ROUNDS):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            place = 64 + int(random.integers(flat_bytes))
            damaged[place] = int(random.choice([0, 1, 0x7F, 0xFF, random.integers(256)]))
        path.write_bytes(damaged)
        try:
            read_bmodel(path)
        except ModelFileError as error:
            messages.append(error.message)
    assert all('damaged.bmodel' in message for message in messages)
    assert len(messages) > ROUNDS // 20
