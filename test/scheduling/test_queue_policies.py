"""Who has to go where there is no room, policy by policy."""

from __future__ import annotations

import pytest

from edge_vlm_ros.core import ArrivalTime, FeatureKey, FrameKey, Priority, ShownAs
from edge_vlm_ros.scheduling import (
    Decode,
    Ended,
    Ending,
    Prefilled,
    Prepared,
    QuestionAsked,
    QueuePolicy,
    Rejected,
    Render,
    Rendered,
    Scheduler,
    SchedulerSettings,
    WorkDone,
)

LOW, MIDDLE, HIGH = Priority


def question(name, priority=MIDDLE, cameras=()):
    keys = tuple(
        FeatureKey((FrameKey(camera, '/image', 1, ArrivalTime(1)),), ShownAs.ALONE)
        for camera in cameras
    )
    return QuestionAsked(name, keys, priority=priority)


def make(policy, max_waiting=2, newest_wins=()):
    return Scheduler(SchedulerSettings(max_waiting, policy=policy, newest_wins=newest_wins))


def ask(scheduler, *questions):
    return [notice for asked in questions for notice in scheduler.handle(asked)]


def begin(scheduler):
    """Do the first work item of the question whose turn it is."""
    work = scheduler.next_work()
    outcome = Rendered((4,)) if isinstance(work, Render) else Prepared()
    scheduler.handle(WorkDone(work, outcome))


def test_with_reject_nobody_waits():
    scheduler = make(QueuePolicy.REJECT)
    assert ask(scheduler, question('a'), question('b', HIGH)) == [Rejected('b', 0, 0)]


def test_a_full_queue_that_replaces_ends_the_oldest_of_the_lowest_priority():
    scheduler = make(QueuePolicy.REPLACE_OLDEST, 3)
    waiting = (question('b', MIDDLE), question('c', LOW), question('d', LOW))
    ask(scheduler, question('a', LOW))
    begin(scheduler)
    ask(scheduler, *waiting)
    assert ask(scheduler, question('e', LOW)) == [Ended('c', Ending.REPLACED)]
    assert ask(scheduler, question('f', HIGH)) == [Ended('d', Ending.REPLACED)]
    assert scheduler.request_ids == ('a', 'f', 'b', 'e')


def test_the_one_that_runs_is_not_replaced():
    scheduler = make(QueuePolicy.REPLACE_OLDEST, 1)
    ask(scheduler, question('a'))
    begin(scheduler)
    assert ask(scheduler, question('b'), question('c')) == [Ended('b', Ending.REPLACED)]
    assert scheduler.request_ids == ('a', 'c')


def test_a_newcomer_below_all_that_wait_is_turned_away():
    scheduler = make(QueuePolicy.REPLACE_OLDEST, 1)
    ask(scheduler, question('a'), question('b'))
    assert ask(scheduler, question('c', LOW)) == [Rejected('c', 1, 1)]


def test_without_room_to_wait_there_is_nobody_to_replace():
    scheduler = make(QueuePolicy.REPLACE_OLDEST, 0)
    assert ask(scheduler, question('a'), question('b')) == [Rejected('b', 0, 0)]


def test_a_newcomer_of_the_same_priority_takes_the_chip():
    scheduler = make(QueuePolicy.PREEMPT)
    ask(scheduler, question('a'))
    begin(scheduler)
    prefill = scheduler.next_work()
    assert ask(scheduler, question('b')) == [Ended('a', Ending.PREEMPTED)]
    assert scheduler.handle(WorkDone(prefill, Prefilled())) == ()
    begin(scheduler)
    assert scheduler.next_work().owner.request_id == 'b'


def test_a_newcomer_of_a_lower_priority_waits_for_the_chip_and_finds_the_queue_full_in_the_end():
    scheduler = make(QueuePolicy.PREEMPT, 1)
    ask(scheduler, question('a', HIGH))
    begin(scheduler)
    newcomers = (question('b'), question('c'), question('d', HIGH))
    assert ask(scheduler, *newcomers) == [Rejected('c', 1, 1), Ended('a', Ending.PREEMPTED)]
    assert scheduler.request_ids == ('d', 'b')


@pytest.mark.parametrize('policy', [QueuePolicy.QUEUE, QueuePolicy.REPLACE_OLDEST])
def test_the_newest_question_about_a_camera_ends_those_that_wait(policy):
    scheduler = make(policy, 2, newest_wins=('front',))
    running = question('a', cameras=['front'])
    ask(scheduler, running)
    begin(scheduler)
    newcomers = (question('b', cameras=['front']), question('c', cameras=['front']))
    assert ask(scheduler, *newcomers) == [Ended('b', Ending.OUTDATED)]
    assert scheduler.request_ids == ('a', 'c'), 'and the one that runs is carried through'


@pytest.mark.parametrize(
    ('waits', 'comes'),
    [
        (question('b', cameras=['rear']), question('c', cameras=['rear'])),
        (question('b', cameras=['front', 'rear']), question('c', cameras=['front', 'rear'])),
        (question('b', cameras=['front', 'left']), question('c', cameras=['front'])),
        (question('b', HIGH, ['front']), question('c', cameras=['front'])),
        (question('b'), question('c', cameras=['front'])),
        (question('b', cameras=['front']), question('c')),
        (question('b', cameras=['']), question('c', cameras=[''])),
    ],
    ids=[
        'another camera',
        'a camera more',
        'more than is shown',
        'a higher one',
        'text only',
        'for text only',
        'no camera at all',
    ],
)
def test_nobody_goes_for_a_newer_question_that_does_not_make_it_pointless(waits, comes):
    scheduler = make(QueuePolicy.QUEUE, 2, newest_wins=('front', 'left'))
    assert ask(scheduler, question('a'), waits, comes) == []
    assert {'b', 'c'} < set(scheduler.request_ids)


def test_a_newer_question_about_more_cameras_makes_it_pointless_too():
    scheduler = make(QueuePolicy.QUEUE, 1, newest_wins=('front', 'left'))
    ask(scheduler, question('a'), question('b', cameras=['front']))
    newer = question('c', cameras=['left', 'front', 'rear'])
    assert ask(scheduler, newer) == [Ended('b', Ending.OUTDATED)], 'and its place is free'
    assert scheduler.request_ids == ('a', 'c')


def test_a_request_id_that_was_preempted_can_be_asked_again_at_once():
    scheduler = make(QueuePolicy.PREEMPT)
    ask(scheduler, question('a'))
    begin(scheduler)
    assert ask(scheduler, question('b'), question('a')) == [
        Ended('a', Ending.PREEMPTED),
        Ended('b', Ending.PREEMPTED),
    ]
    begin(scheduler)
    work = scheduler.next_work()
    scheduler.handle(WorkDone(work, Prefilled()))
    assert isinstance(scheduler.next_work(), Decode)
