"""Windows of Qwen2.5-VL's vision tower: the published order of blocks, each window by itself."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reference.golden_cases import WINDOW_GRIDS

from edge_vlm_ros.vision import window_order

GOLDEN = np.load(Path(__file__).parents[1] / 'families' / 'data' / 'qwen2_5_vl.npz')


@pytest.mark.parametrize('number', range(len(WINDOW_GRIDS)))
def test_blocks_are_ordered_as_the_published_tower_orders_them(number):
    moments, rows, columns = WINDOW_GRIDS[number]
    order, lengths = window_order(moments, rows // 2, columns // 2, 4)
    assert order.tolist() == GOLDEN[f'windows{number}_order'].tolist()
    ends = np.concatenate([[0], (4 * lengths).cumsum()])
    assert ends.tolist() == GOLDEN[f'windows{number}_ends'].tolist()


@given(
    moments=st.integers(1, 3),
    rows=st.integers(1, 13),
    columns=st.integers(1, 13),
    side=st.integers(1, 5),
)
def test_law_each_run_is_one_window_of_one_moment_and_all_blocks_are_there(
    moments, rows, columns, side
):
    order, lengths = window_order(moments, rows, columns, side)
    assert sorted(order.tolist()) == list(range(moments * rows * columns))
    assert lengths.min() > 0
    windows = set()
    for run in np.split(order, lengths.cumsum()[:-1]):
        moment, place = np.divmod(run, rows * columns)
        row, column = np.divmod(place, columns)
        (window,) = set(zip(moment, row // side, column // side, strict=True))
        windows.add(window)
        assert run.tolist() == sorted(run.tolist())
    assert len(windows) == len(lengths)
