"""Events against what is true."""

from __future__ import annotations

import math

import pytest

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.replay import read_labels, read_questions, watches_of
from edge_vlm_ros.replay.labels import Episode, Span, score


def episode(begin_s, end_s, begun_s=None):
    return Episode('e', Span(begin_s, end_s), begun_s or begin_s + 0.2, end_s + 0.2)


def test_hits_misses_false_alarms_and_repetitions_are_told_apart():
    labels = [Span(10, 20), Span(30, 40), Span(50, 60)]
    events = [episode(11, 13), episode(15, 19), episode(25, 27), episode(32, 44)]
    found = score(events, labels)
    assert (found.hits, found.misses, found.false_alarms, found.repeated) == (2, 1, 1, 1)
    assert found.delays_s == pytest.approx([1.2, 2.2])
    assert found.end_delays_s == pytest.approx([-6.8, 4.2])
    hour = found.fields(1800.0)
    assert (hour['misses_per_hour'], hour['false_alarms_per_hour']) == (2.0, 2.0)


def test_nobody_labels_to_the_frame():
    assert score([episode(9.6, 9.7)], [Span(10, 20)]).hits == 1
    assert score([episode(8.0, 9.0)], [Span(10, 20)]).false_alarms == 1


def test_one_event_over_two_labels_is_both_hit_late():
    found = score([episode(11, 35)], [Span(10, 20), Span(30, 40)])
    assert (found.hits, found.misses, found.repeated) == (2, 0, 0)


def test_an_event_that_never_ended_has_no_end_delay():
    found = score([Episode('e', Span(11, math.inf), 11.2)], [Span(10, 20)])
    assert (found.hits, found.end_delays_s) == (1, [])


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('watches: {w: [{begin_s: 5, end_s: 3}]}', 'end_s before begin_s'),
        ('watches: {w: [{begin: 5}]}', 'begin_s, end_s'),
        ('watches: {w: 5}', 'begin_s, end_s'),
        ('events: {}', 'a mapping `watches` is missing'),
        ('"', 'cannot be read as YAML'),
    ],
)
def test_a_labels_file_that_says_something_else_is_refused(tmp_path, text, words):
    path = tmp_path / 'labels.yaml'
    path.write_text(text)
    with pytest.raises(BadRequestError, match=words):
        read_labels(path)


def test_a_watch_is_a_line_or_the_nodes_own_parameter_file(tmp_path):
    (line,) = watches_of('way: Is the way clear? -> no')
    assert (line.name, line.question, line.when) == ('way', 'Is the way clear?', ('no',))
    path = tmp_path / 'robot.yaml'
    path.write_text(
        'vlm:\n  ros__parameters:\n    watch_names: [way]\n    watches:\n'
        '      way: {question: "Is the way clear?", when: ["no"], period_s: 2}\n'
    )
    (spec,) = watches_of(str(path))
    assert (spec.question, spec.when, spec.period_s) == ('Is the way clear?', ('no',), 2.0)
    for wrong in ('no colon', 'way: Eh? -> perhaps', 'a b: Eh?'):
        with pytest.raises(BadRequestError):
            watches_of(wrong)


def test_questions_are_read_in_order_and_checked(tmp_path):
    path = tmp_path / 'asked.json'
    path.write_text('{"questions": [{"at_s": 3, "question": "b"}, {"at_s": 1, "question": "a"}]}')
    assert [each.question for each in read_questions(path)] == ['a', 'b']
    path.write_text('{"questions": [{"question": "when?"}]}')
    with pytest.raises(BadRequestError, match='at_s'):
        read_questions(path)
