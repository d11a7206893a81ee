"""Costs kept beside a model: two loads plan alike, whatever the noise of what they measure."""

import json

import numpy as np
import pytest

from edge_vlm_ros.core import ModelFiles
from edge_vlm_ros.engines.axera.costs import GroupCosts, settle_costs
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.plan import Planner
from edge_vlm_ros.engines.kept_costs import FILE, settle
from edge_vlm_ros.engines.sophgo.costs import Bench, measure_costs

GROUPS = tuple(PrefillGroup(1 + i, 128, 128 * i) for i in range(17))
SHAPES = StackShapes(28, 8, 4, 10, 1, 1, GROUPS, (DecodeGroup(0, 2559),))
EVEN = GroupCosts({g.index: 7.483 + 2.76 * i for i, g in enumerate(GROUPS)}, {0: 2.686})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / 'layer').write_bytes(b'weights')
    return ModelFiles('model', 'ax650', folder, folder, {'layers.0': folder / 'layer'})


def noisy(seed, amount=0.1, clock=1.0):
    random = np.random.default_rng(seed)

    def off(costs):
        return {k: clock * ms * random.uniform(1 - amount, 1 + amount) for k, ms in costs.items()}

    return GroupCosts(off(EVEN.prefill), off(EVEN.decode))


def plans(costs):
    planner = Planner(SHAPES, costs)
    cuts = [planner.plan(held, tokens) for held in (0, 130, 303) for tokens in range(1, 150, 13)]
    return [[piece.tokens for piece in cut] for cut in cuts]


def test_plans_of_noise_differ_and_of_kept_costs_do_not(files):
    raw = {str(plans(noisy(seed))) for seed in range(4)}
    assert len(raw) > 1  # the noise is enough to matter
    kept = {str(plans(settle_costs(noisy(seed), files, 'in place'))) for seed in range(4)}
    assert len(kept) == 1


def test_a_chip_that_is_slower_in_all_it_does_plans_alike(files):
    first = settle_costs(noisy(0), files, 'in place')
    assert settle_costs(noisy(1, clock=3.0), files, 'in place') == first


def test_what_costs_otherwise_now_is_taken_and_kept(files):
    settle({'chunk': 10.0, 'step': 1.0, 'head': 2.0}, files, 'a')
    changed = settle({'chunk': 20.0, 'step': 1.0, 'head': 2.0}, files, 'a')
    assert changed == {'chunk': 20.0, 'step': 1.0, 'head': 2.0}
    assert settle({'chunk': 19.0, 'step': 1.1, 'head': 2.1}, files, 'a') == changed


def test_another_way_and_other_files_have_costs_of_their_own(files):
    one = settle({'chunk': 10.0, 'step': 1.0}, files, 'in place')
    assert settle({'chunk': 11.0, 'step': 1.1}, files, 'portable') != one
    files.weights['layers.0'].write_bytes(b'other weights')
    assert settle({'chunk': 11.0, 'step': 1.1}, files, 'in place') != one
    assert len(json.loads((files.folder / FILE).read_text())) == 3


@pytest.mark.parametrize(
    'content',
    ['', '{', '[]', '{"a": 1}', '{"KEY": {"chunk": "x"}}', '{"KEY": {"chunk": -1.0}}', '\udcff'],
)
def test_a_damaged_file_counts_as_none_and_is_written_again(files, content):
    one = settle({'chunk': 10.0}, files, 'a')
    (key,) = json.loads((files.folder / FILE).read_text())
    damaged = content.replace('KEY', key)
    (files.folder / FILE).write_bytes(damaged.encode('utf-8', 'surrogateescape'))
    assert settle({'chunk': 11.0}, files, 'a') == {'chunk': 11.0} != one
    assert settle({'chunk': 12.0}, files, 'a') == {'chunk': 11.0}


def test_beside_a_model_that_nobody_may_write_they_are_kept_for_the_user(files, tmp_path):
    (files.folder / FILE).mkdir()  # in the way for root, too
    one = settle({'chunk': 10.0}, files, 'a')
    assert (tmp_path / 'cache' / 'edge_vlm_ros' / FILE).is_file()
    assert settle({'chunk': 11.0}, files, 'a') == one


def test_where_nothing_can_be_kept_costs_are_rounded(files, tmp_path):
    (files.folder / FILE).mkdir()
    (tmp_path / 'cache').write_bytes(b'')  # no folder
    assert settle({'chunk': 10.04, 'step': 0.01234}, files, 'a') == {'chunk': 10.0, 'step': 0.012}


class NoisyNets:
    """A bmodel whose steps and pieces take about as long each time."""

    def __init__(self, seed):
        self._random, self._now = np.random.default_rng(seed), 0.0

    def _take(self, seconds):
        self._now += seconds * self._random.uniform(0.9, 1.1)

    def _piece(self, held, tokens, should_stop):
        should_stop()  # before its only layer
        self._take(0.2 + 0.01 * tokens)

    def bench(self):
        return Bench(
            layers=1,
            rows=512,
            held=0,
            capacities=(512, 1536),
            is_fixed=False,
            run_piece=self._piece,
            run_step=lambda held: self._take(0.1 if held < 512 else 0.2),
            clock=lambda: self._now,
        )


def test_a_bmodels_costs_are_kept_as_well(files):
    def settled(measured):
        return settle(measured, files, 'runtime')

    assert measure_costs(NoisyNets(1).bench()) != measure_costs(NoisyNets(2).bench())
    found = [measure_costs(NoisyNets(seed).bench(), settled) for seed in range(4)]
    assert found == found[:1] * 4
