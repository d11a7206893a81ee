"""A recording played to watches and questions, on its own time."""

from __future__ import annotations

import pytest
from replay.conftest import Made, Model, every

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.replay import Player, ReplaySettings, report_of, worse_than
from edge_vlm_ros.replay.files import TimedQuestion
from edge_vlm_ros.replay.labels import Span
from edge_vlm_ros.watch import Blindness, WatchSpec

BRIGHT_WATCH = WatchSpec('bright', 'Is it bright?', period_s=0.5, begin_looks=1, begin_of=1)
TWO_EVENTS = every(0.1, (0, 5, 90), (5, 10, 200), (10, 15, 90), (15, 20, 200), (20, 25, 90))


def play(recording, model, *specs, questions=(), **settings):
    return Player(recording, model, specs, questions, settings=ReplaySettings(**settings)).play()


def test_events_are_found_with_their_stamps_and_their_delays(model):
    played = play(Made(TWO_EVENTS), model, BRIGHT_WATCH)
    report = report_of(played, {'bright': [Span(5, 10), Span(15, 20)]})
    watch = report['watches']['bright']
    assert (watch['hits'], watch['misses'], watch['false_alarms']) == (2, 0, 0)
    assert 0.0 < watch['delay_s'] <= 0.7
    begin = next(r for r in played.records if r['kind'] == 'event')
    assert (begin['event'], begin['verdict']) == ('begin', 'yes')
    assert 5.0 <= begin['evidence_s'] < begin['decided_s'] <= 5.7
    assert report['frames'] == len(TWO_EVENTS)
    assert report['seconds'] == pytest.approx(24.9)


def test_the_gate_keeps_the_chip_free_and_its_share_is_told(model):
    with_gate = report_of(play(Made(TWO_EVENTS), model, BRIGHT_WATCH), {})
    without = WatchSpec('bright', 'Is it bright?', period_s=0.5, every_look=True)
    no_gate = report_of(play(Made(TWO_EVENTS), Model(), without), {})
    assert with_gate['watches']['bright']['looks'] < 10
    assert no_gate['watches']['bright']['looks'] == 50
    assert with_gate['chip_share'] < no_gate['chip_share'] / 4
    assert no_gate['chip_share'] == pytest.approx(50 * 0.1 / 24.9, rel=0.01)


def test_a_slow_chip_misses_looks_and_its_answers_are_about_the_past():
    played = play(Made(TWO_EVENTS), Model(took_s=2.0), BRIGHT_WATCH)
    report = report_of(played, {'bright': [Span(5, 10), Span(15, 20)]})
    watch = report['watches']['bright']
    assert watch['missed']['busy'] > 3
    assert watch['delay_s'] >= 2.0
    assert report['age_s']['p50'] == pytest.approx(2.0, abs=0.2)
    assert played.facts[0].counts.missed[Blindness.CAMERA] == 0


def test_a_camera_that_stops_makes_the_watch_blind(model):
    shown = every(0.1, (0, 3, 90)) + every(0.1, (10, 13, 90))
    played = play(Made(shown), model, BRIGHT_WATCH)
    kinds = [r['event'] for r in played.records if r['kind'] == 'event']
    assert kinds == ['blind', 'sight']
    assert played.facts[0].counts.missed[Blindness.CAMERA] >= 9


def test_frames_that_come_late_are_as_old_as_their_stamps_say(model):
    played = play(Made(TWO_EVENTS, late_s=1.5), model, BRIGHT_WATCH)
    assert min(played.ages_s) == pytest.approx(1.6)
    dead = play(Made(TWO_EVENTS, late_s=3.0), model, BRIGHT_WATCH)
    assert dead.facts[0].counts.looks == 0


def test_questions_are_asked_at_their_moment_before_any_look_and_judged():
    model = Model(took_s=0.4)
    questions = [
        TimedQuestion(2.0, 'Is it bright now?', ('yes', 'no'), expect='No.'),
        TimedQuestion(2.0, 'And again?', ('yes', 'no'), expect='yes'),
        TimedQuestion(7.0, 'A clip?', ('yes', 'no'), expect='yes', last_seconds=2.0),
        TimedQuestion(99.0, 'Too late?'),
    ]
    played = play(Made(TWO_EVENTS), model, BRIGHT_WATCH, questions=questions, max_frames=4)
    asked = [r for r in played.records if r['kind'] == 'question']
    assert [r['is_right'] for r in asked] == [True, False, True]
    assert asked[1]['begun_s'] == pytest.approx(asked[0]['done_s'], abs=0.11)
    clip = next(q for q in model.questions if q.text == 'A clip?')
    assert len(clip.frames) == 4
    found = report_of(played, {})['questions']
    assert found == {'asked': 3, 'right': 2, 'wrong': 1, 'failed': 0, 'after_the_end': 1}


def test_what_answers_are_to_take_may_be_set_so_that_machines_agree():
    reports = [
        report_of(play(Made(TWO_EVENTS), Model(took_s), BRIGHT_WATCH, look_s=0.3), {})
        for took_s in (0.01, 5.0)
    ]
    assert reports[0] == reports[1]


def test_worse_than_a_baseline_is_more_misses_alarms_delay_or_wrong_answers(model):
    labels = {'bright': [Span(5, 10), Span(15, 20)]}
    good = report_of(play(Made(TWO_EVENTS), model, BRIGHT_WATCH), labels)
    assert worse_than(good, good) == []
    slow = report_of(play(Made(TWO_EVENTS), Model(took_s=2.0), BRIGHT_WATCH), labels)
    assert any('late' in line for line in worse_than(slow, good))
    missed = report_of(play(Made(every(0.1, (0, 25, 90))), Model(), BRIGHT_WATCH), labels)
    assert any('2 misses' in line for line in worse_than(missed, good))
    alarm = report_of(play(Made(TWO_EVENTS), Model(), BRIGHT_WATCH), {'bright': [Span(5, 10)]})
    assert any('1 false_alarms' in line for line in worse_than(alarm, good))
    assert worse_than({**good, 'watches': {}}, good) != []


def test_a_watch_of_a_camera_that_is_not_there_is_refused(model):
    spec = WatchSpec('w', 'Eh?', cameras=('rear',))
    with pytest.raises(BadRequestError, match="no camera 'rear', but front"):
        play(Made(TWO_EVENTS), model, spec)
