"""What is true in a clip: the rules of the demo world, and the shipped clips' own notes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_vlm_ros.demo import truth
from edge_vlm_ros.demo.truth import ClipMoment, ClipTruth, Thing

CLIPS = sorted((Path(truth.__file__).parent / 'clips').glob('*.json'))


def thing(name, x=0.5, distance_m=2.0, visible=1.0):
    return Thing(*name.split(), x, distance_m, visible)


def moment(*things, time_s=0.0, yaw_deg=0.0):
    return ClipMoment(time_s, things, yaw_deg)


def test_a_description_goes_from_left_to_right():
    seen = moment(thing('white cone', 0.5), thing('blue ball', 0.9), thing('red box', 0.1))
    assert truth.describe([seen]) == (
        'A red box on the left, a white cone in the middle and a blue ball on the right.'
    )
    assert truth.describe([moment(thing('red box', 0.1), thing('blue ball', 0.2))]) == (
        'A red box on the left and a blue ball on the left.'
    )
    assert truth.describe([moment(thing('red box', 0.1))]) == 'A red box on the left.'
    assert truth.describe([moment()]) == 'Nothing.'


@pytest.mark.parametrize(
    'things',
    [
        [thing('red box', 0.34)],
        [thing('red box', 0.64)],
        [thing('red box', 0.10), thing('blue ball', 0.14)],
        [thing('red box', 0.10, visible=0.7)],
    ],
)
def test_a_scene_near_a_border_has_no_true_description(things):
    assert truth.describe([moment(*things)]) is None


def test_still_questions_mean_the_last_frame():
    before, after = moment(thing('red box', 0.1)), moment(thing('red box', 0.9))
    assert truth.describe([before, after]) == 'A red box on the right.'


def test_a_colour_is_asked_of_one_thing_alone():
    rule = truth.colour_of('ball')
    assert rule([moment(thing('red box', 0.1), thing('blue ball', 0.5))]) == 'Blue.'
    assert rule([moment(thing('red box', 0.1))]) is None
    assert rule([moment(thing('red ball', 0.1), thing('blue ball', 0.5))]) is None


@pytest.mark.parametrize(
    ('things', 'answer'),
    [
        ([], 'Yes.'),
        ([thing('red box', 0.1, 1.0)], 'Yes.'),
        ([thing('red box', 0.5, 1.2)], 'No, a red box is in the way.'),
        (
            [thing('blue ball', 0.45, 1.2), thing('red box', 0.55, 1.0)],
            'No, a red box is in the way.',
        ),
        ([thing('red box', 0.5, 2.0)], 'Yes.'),
        ([thing('red box', 0.5, 1.5)], None),
        ([thing('red box', 0.34, 1.0)], None),
    ],
)
def test_the_way_is_blocked_by_what_stands_near_in_the_middle(things, answer):
    assert truth.path([moment(*things)]) == answer


MOTIONS = [
    (thing('red box', 0.2), thing('red box', 0.4), 'The red box is moving right.'),
    (thing('red box', 0.4), thing('red box', 0.2), 'The red box is moving left.'),
    (
        thing('red box', 0.4, 2.0),
        thing('red box', 0.4, 1.2),
        'The red box is moving closer.',
    ),
    (thing('red box', 0.4, 1.5), thing('red box', 0.4, 2.2), 'The red box is moving away.'),
    (thing('red box', 0.4), thing('red box', 0.4), 'Nothing is moving.'),
    (thing('red box', 0.4), thing('red box', 0.48), None),
    (thing('red box', 0.4, 1.5), thing('red box', 0.4, 1.7), None),
    (thing('red box', 0.4, 1.5), thing('red box', 0.7, 2.5), None),
    (thing('red box', 0.4), thing('red box', 0.7, visible=0.5), None),
    (thing('red box', 0.4), thing('red cone', 0.7), None),
]


@pytest.mark.parametrize(('then', 'now', 'answer'), MOTIONS)
def test_motion_needs_a_plain_change_in_one_way(then, now, answer):
    rest = thing('white cone', 0.8)
    assert truth.motion([moment(then, rest), moment(now, rest)]) == answer


def test_two_things_that_move_are_a_toss_up():
    first = moment(thing('red box', 0.1), thing('blue ball', 0.5))
    last = moment(thing('red box', 0.4), thing('blue ball', 0.9))
    assert truth.motion([first, last]) is None


@pytest.mark.parametrize(
    ('yaw_deg', 'answer'),
    [(12, 'The camera is turning left.'), (-12, 'The camera is turning right.'), (5, None)],
)
def test_a_turning_camera_moves_everything(yaw_deg, answer):
    first, last = moment(thing('red box', 0.3)), moment(thing('red box', 0.6), yaw_deg=yaw_deg)
    assert truth.motion([first, last]) == answer


def test_one_frame_shows_no_motion():
    assert truth.motion([moment(thing('red box'))]) is None


def test_the_moment_nearest_in_time_is_found():
    clip = ClipTruth([moment(time_s=t) for t in (0.0, 0.1, 0.2)])
    times = [clip.at(t).time_s for t in (-1.0, 0.04, 0.06, 0.1, 9.0)]
    assert times == [0.0, 0.0, 0.1, 0.1, 0.2]


@pytest.mark.parametrize(
    ('said', 'true', 'right'),
    [
        ('Blue.', 'Blue.', True),
        ('blue', 'Blue.', True),
        ('Red.', 'Blue.', False),
        ('', 'Blue.', False),
        ('No, a red box is in the way.', 'No, a red box is in the way.', True),
        ('No, a red ball is in the way.', 'No, a red box is in the way.', False),
        ('No.', 'No, a red box is in the way.', False),
    ],
)
def test_an_answer_is_right_only_when_all_its_words_are(said, true, right):
    assert truth.is_right(said, true) is right


def test_there_is_a_clip():
    assert CLIPS


@pytest.mark.parametrize('path', CLIPS, ids=lambda path: path.stem)
def test_our_rules_agree_with_what_the_renderer_noted(path):
    notes, clip = json.loads(path.read_text()), ClipTruth.load(path)
    assert len(clip.moments) == notes['frames_in_all']
    for note, seen in zip(notes['frames'], clip.moments, strict=True):
        assert truth.describe([seen]) == note['describe']
        assert truth.path([seen]) == note['path']
    seconds = notes['motion']['window_seconds']
    for stop in range(int(seconds) + 1, int(clip.length_s)):
        assert truth.motion(clip.window(stop, seconds, 8)) == notes['motion']['answer']
    for shape, colour in notes['colour'].items():
        assert truth.colour_of(shape)(clip.moments) == colour
