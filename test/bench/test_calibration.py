"""How a watch's probabilities are calibrated: the arithmetic, and that the model is asked."""

from __future__ import annotations

import json
import random

import pytest

from edge_vlm_ros.serving import VlmPipeline
from tools.bench.watch.calibration import (
    DATA,
    Look,
    as_markdown,
    asked_of,
    bins,
    calibration_error,
    looks,
    rows,
)


def test_a_threshold_turns_votes_into_unsure_looks():
    found = [
        Look(is_event=True, says_event=True, probability=0.99),
        Look(is_event=True, says_event=True, probability=0.6),
        Look(is_event=False, says_event=True, probability=0.7),
        Look(is_event=False, says_event=False, probability=0.9),
    ]
    none, some = rows(found, (0.5, 0.8))
    assert (none.unsure, none.false_alarms, none.misses) == (0.0, 0.5, 0.0)
    assert (some.unsure, some.false_alarms, some.misses) == (0.5, 0.0, 0.5)


def test_the_error_is_none_where_the_probability_is_the_share_that_is_right():
    fair = [Look(is_event=True, says_event=n < 6, probability=0.6) for n in range(10)]
    assert calibration_error(fair) == pytest.approx(0.0)
    vain = [Look(is_event=True, says_event=n < 6, probability=1.0) for n in range(10)]
    assert calibration_error(vain) == pytest.approx(0.4)
    assert sum(row[2] for row in bins(fair + vain)) == 20


def test_each_scene_is_asked_what_is_true_and_what_is_not():
    scenes = json.loads((DATA / 'questions.json').read_text())['stills'][:20]
    asked = [each for s in scenes for each in asked_of(s['objects'], random.Random(1))]
    assert 0.25 < sum(is_yes for _, is_yes in asked) / len(asked) < 0.75
    assert {'existence' if 'a ' in words else 'other' for words, _ in asked} == {
        'existence',
        'other',
    }


def test_the_model_is_asked_in_good_light_and_at_dusk():
    with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
        found = {'day': looks(pipeline, scenes=3), 'dusk': looks(pipeline, is_dusk=True, scenes=3)}
    assert len(found['day']) == len(found['dusk']) > 20
    assert all(0.5 <= look.probability <= 1.0 for own in found.values() for look in own)
    assert sum(look.is_right for look in found['day']) > 0.8 * len(found['day'])
    assert found['day'] != found['dusk']
    assert as_markdown(found).count('\n| day |') > 7
