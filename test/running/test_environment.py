"""The environment of started processes, and how long a test waits for them."""

from __future__ import annotations

import os
import sys

import pytest
from support import patience as module
from support.environment import environment, on_domain
from support.patience import Patience
from support.sophgo import emulator


def test_what_was_set_after_changes_were_chosen_is_kept(monkeypatch):
    chip = emulator.variables('bm1684x')
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')
    assert environment(chip, on_domain(7))['ROS_DOMAIN_ID'] == '7'
    assert environment(on_domain(7), chip)['ROS_DOMAIN_ID'] == '7'
    assert environment(chip)['ROS_DOMAIN_ID'] == '42'


def test_the_last_change_wins_and_none_takes_away(monkeypatch):
    monkeypatch.setenv('EDGE_VLM_A', 'before')
    changed = environment({'EDGE_VLM_A': 'first', 'EDGE_VLM_B': 'b'}, {'EDGE_VLM_A': None})
    assert 'EDGE_VLM_A' not in changed
    assert changed['EDGE_VLM_B'] == 'b'
    assert changed['PATH'] == os.environ['PATH']


def test_tests_of_nodes_have_their_field_types_checked(spawn):
    child = spawn(
        [sys.executable, '-c', 'import os; print(os.environ["ROS_PYTHON_CHECK_FIELDS"])']
    )
    assert child.wait() == 0
    assert child.output() == '1\n'


@pytest.mark.parametrize(('between_s', 'looks'), [(0.05, 20), (0.1, 10), (60.0, 10)])
def test_a_wait_counts_looks_rather_than_the_time_of_a_busy_machine(monkeypatch, between_s, looks):
    now_s = [0.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now_s[0])
    patience = Patience(1.0)
    counted = 0
    while True:
        now_s[0] += between_s
        if patience.is_over():
            break
        counted += 1
    assert counted == pytest.approx(looks, abs=1)
