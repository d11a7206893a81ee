"""Sets whose files mean harm: what they declare is read or refused, never anything else.

The vendor's own parser is not here. What it says of a file (names, types and sizes of tensors, by
shape group) is as hostile as the file, and that is what the stand-in's format holds.
"""

import os
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.mutations import mutations

from edge_vlm_ros.core import DeviceError, ModelFileError
from edge_vlm_ros.engines import inspect_model, open_engine

pytestmark = pytest.mark.axera
PARTS = ('layers.0', 'layers.1', 'post', 'vision_encoder')
ROUNDS = 40
SIZES = (0, 1, 2, 3, 5, 64, 65, 4096, 2**31 - 1, 2**31, 2**40, 10**30)
NAMES = ('K_cache', 'V_cache_out', 'indices', 'input', 'output', 'mask', 'output_1', '../x', '色')


class Liar:
    """Changes what an axmodel declares, by a seed."""

    def __init__(self, seed):
        self._random = np.random.default_rng(seed)

    def pick(self, values):
        return values[int(self._random.integers(len(values)))]

    def model(self, model):
        """Return a model that declares something else, and computes nothing."""
        groups = list(model.groups)
        for _ in range(int(self._random.integers(1, 4))):
            groups = self._groups(groups)
        return replace(model, groups=tuple(groups), arrays={})

    def _groups(self, groups):
        match int(self._random.integers(5)):
            case 0 if len(groups) > 1:
                groups.remove(self.pick(groups))
            case 1:
                groups.insert(0, self.pick(groups))
            case 2:  # Of every group, for all have as many.
                side = self.pick(('inputs', 'outputs'))
                place = int(self._random.integers(len(getattr(groups[0], side))))
                return [replace(g, **{side: _without(getattr(g, side), place)}) for g in groups]
            case _:
                number = int(self._random.integers(len(groups)))
                groups[number] = self._group(groups[number])
        return groups

    def _group(self, group):
        side = self.pick(('inputs', 'outputs'))
        tensors = list(getattr(group, side))
        number = int(self._random.integers(len(tensors)))
        tensors[number] = self._tensor(tensors[number])
        return replace(group, **{side: tuple(tensors)})

    def _tensor(self, tensor):
        shape = list(tensor.shape)
        place = int(self._random.integers(len(shape)))
        match int(self._random.integers(6)):
            case 0:
                return replace(tensor, name=self.pick(NAMES))
            case 1:
                return replace(tensor, dtype=self.pick(('bf16', 'f32', 's8', 'u32', 'u8')))
            case 2 if len(shape) > 1:
                del shape[place]
            case 3:
                shape.insert(place, self.pick(SIZES))
            case _:
                shape[place] = self.pick(SIZES)
        return replace(tensor, shape=tuple(shape))


def _without(tensors, place):
    return tensors[:place] + tensors[place + 1 :] or tensors


@pytest.fixture
def files(backend, write_set, tmp_path, monkeypatch):
    """Give a set of the test's own."""
    from support.axera.sets import model_files

    monkeypatch.setenv('EDGE_VLM_AX_CMM_BYTES', str(64 << 20))
    return model_files(shutil.copytree(write_set('tiny'), tmp_path / 'set'))


def uses(files, backend):
    """Give both ways to read a set."""
    return (
        lambda: inspect_model('ax650', files),
        lambda: open_engine('ax650', files, options={'backend': backend}).close(),
    )


def error_of(use):
    """Return what a use ends in, where it is no fault of ours; None = it works."""
    try:
        use()
    except (ModelFileError, DeviceError) as error:
        return error
    return None


@pytest.mark.parametrize('part', PARTS)
def test_law_a_file_that_declares_anything_is_read_or_refused(files, backend, part):
    from support.axera.axmodel_file import read_axmodel, write_axmodel

    path = files.weights[part]
    whole = read_axmodel(path)
    ends = Counter()
    rounds = ROUNDS if backend == 'portable' else ROUNDS // 4
    for seed in range(rounds):
        write_axmodel(path, Liar(seed).model(whole))
        for use in uses(files, backend):
            error = error_of(use)
            ends[type(error)] += 1
            if isinstance(error, ModelFileError):
                named = (path.name, files.weights['layers.0'].name)
                assert any(name in error.message for name in named), (seed, error.message)
            elif error is not None:  # It may be the chip's memory: the driver says no more.
                assert re.search('memory|the log says why', error.message), (seed, error.message)
    assert ends[ModelFileError] > rounds // 10


def test_names_that_are_no_text_are_refused_in_words_that_can_be_sent(files):
    folder = files.folder
    for path in folder.glob('*.axmodel'):
        path.rename(path.with_name(os.fsdecode(b'caf\xe9_') + path.name))
    from support.axera.sets import model_files

    error = error_of(lambda: open_engine('ax650', model_files(folder)).close())
    assert isinstance(error, ModelFileError)
    assert 'caf\\udce9_' in error.message.encode('utf-8').decode('utf-8')


def test_law_damaged_bytes_are_refused_by_the_driver_and_named(files):
    path = files.weights['layers.0']
    content = path.read_bytes()
    for damaged in mutations(content[:600], ROUNDS):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=path.name):
            inspect_model('ax650', files)
