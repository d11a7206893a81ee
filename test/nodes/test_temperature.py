"""Whether the machine is too hot for work that nobody waits for."""

from __future__ import annotations

import pytest

from edge_vlm_ros.nodes.temperature import TemperatureGate

S = 10**9


@pytest.fixture
def zones(tmp_path):
    """Give a function that sets the zones, in thousandths of a degree or as text."""

    def heat(*values):
        for number, value in enumerate(values):
            folder = tmp_path / f'thermal_zone{number}'
            folder.mkdir(exist_ok=True)
            (folder / 'temp').write_text(f'{value}\n')
        return tmp_path

    return heat


def test_the_hottest_zone_counts_and_it_has_to_cool_down(zones):
    gate = TemperatureGate(80.0, zones(50_000, 79_000))
    assert not gate.is_too_hot(0)
    zones(50_000, 81_000)
    assert gate.is_too_hot(1 * S)
    assert '81 C, the limit is 80 C' in gate.problem
    zones(50_000, 78_000)
    assert gate.is_too_hot(2 * S)
    zones(50_000, 76_000)
    assert not gate.is_too_hot(3 * S)
    assert gate.problem == ''


def test_it_is_read_at_most_once_a_second(zones):
    gate = TemperatureGate(80.0, zones(50_000))
    assert not gate.is_too_hot(0)
    zones(90_000)
    assert not gate.is_too_hot(S - 1)
    assert gate.is_too_hot(S)


def test_a_zone_that_says_nothing_is_left_out(zones):
    gate = TemperatureGate(80.0, zones('asleep', 90_000))
    assert gate.is_too_hot(0)


def test_where_no_zone_can_be_read_the_limit_is_off_and_that_is_said(tmp_path):
    for folder in (tmp_path, tmp_path / 'none'):
        gate = TemperatureGate(80.0, folder)
        assert not gate.is_too_hot(0)
        assert 'no temperature can be read' in gate.problem


def test_without_a_limit_nothing_is_read_and_nothing_said(tmp_path):
    gate = TemperatureGate(0.0, tmp_path / 'none')
    assert not gate.is_too_hot(0)
    assert gate.problem == ''
    assert gate.hottest_c is None
