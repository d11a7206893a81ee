"""What the scheduler does next, step by step."""

from __future__ import annotations

import pytest

from edge_vlm_ros.core import FrameKey
from edge_vlm_ros.scheduling import (
    AHEAD,
    Cancelled,
    Decode,
    Decoded,
    Encode,
    Encoded,
    Ended,
    Ending,
    Evicted,
    Failed,
    FrameArrived,
    GivenUp,
    Idle,
    Prefill,
    Prefilled,
    Prepare,
    Prepared,
    QuestionAsked,
    Rejected,
    Render,
    Rendered,
    Scheduler,
    SchedulerSettings,
    Tick,
    WorkDone,
)


def frame(number, camera='front'):
    return FrameKey(camera, '/image', number)


def make_scheduler(**settings):
    return Scheduler(SchedulerSettings(**settings))


def do(scheduler, outcome):
    """Do the next work item with this outcome; return it and what was said of it."""
    work = scheduler.next_work()
    return work, scheduler.handle(WorkDone(work, outcome))


def works_until_decode(scheduler, *, pieces=(5,), reused_tokens=0, frames=()):
    """Carry a question to its first token; return the work items."""
    works = []
    while True:
        work = scheduler.next_work()
        works.append(work)
        if isinstance(work, Decode | Idle):
            return works
        outcome = {
            Prepare: Prepared(),
            Render: Rendered(tuple(pieces), reused_tokens, tuple(frames)),
            Encode: Encoded(10),
            Prefill: Prefilled(),
        }[type(work)]
        scheduler.handle(WorkDone(work, outcome))


def test_a_question_goes_through_every_step_in_order():
    scheduler = make_scheduler()
    frames = (frame(1), frame(2))
    scheduler.handle(QuestionAsked('a', frames))
    assert works_until_decode(scheduler, pieces=(100, 100, 50), frames=frames) == [
        Prepare('a', frame(1)),
        Prepare('a', frame(2)),
        Render('a'),
        Encode('a', frame(1)),
        Encode('a', frame(2)),
        Prefill('a', 0, 100),
        Prefill('a', 100, 200),
        Prefill('a', 200, 250),
        Decode('a'),
    ]
    assert scheduler.handle(WorkDone(Decode('a'), Decoded(is_last=False))) == ()
    assert do(scheduler, Decoded(is_last=True)) == (Decode('a'), (Ended('a', Ending.ANSWERED),))
    assert scheduler.next_work() == Idle()


def test_frames_whose_features_are_kept_are_not_prepared_or_encoded_again():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    works_until_decode(scheduler, frames=[frame(1)])
    scheduler.handle(WorkDone(Decode('a'), Decoded(is_last=True)))
    scheduler.handle(QuestionAsked('b', (frame(1), frame(2))))
    works = works_until_decode(scheduler, frames=[frame(1), frame(2)])
    assert works[:3] == [Prepare('b', frame(2)), Render('b'), Encode('b', frame(2))]


def test_only_the_part_of_the_prompt_that_the_cache_lacks_is_prefilled():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    works = works_until_decode(scheduler, pieces=(70,), reused_tokens=180)
    assert works[1:3] == [Prefill('a', 180, 250), Decode('a')]


def test_a_prompt_is_prefilled_in_the_pieces_that_were_planned():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    works = works_until_decode(scheduler, pieces=(1, 128, 7, 1), reused_tokens=20)
    assert works[1:-1] == [
        Prefill('a', 20, 21),
        Prefill('a', 21, 149),
        Prefill('a', 149, 156),
        Prefill('a', 156, 157),
    ]


def test_work_given_up_for_a_question_that_is_over_changes_nothing():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    scheduler.handle(QuestionAsked('b'))
    do(scheduler, Rendered((5, 5)))
    work = scheduler.next_work()
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED),)
    assert scheduler.handle(WorkDone(work, GivenUp())) == ()
    assert scheduler.next_work() == Render('b')


def test_work_given_up_for_want_of_time_ends_with_the_next_tick():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', deadline_ns=10))
    do(scheduler, Rendered((5, 5)))
    assert do(scheduler, GivenUp()) == (Prefill('a', 0, 5), ())
    assert scheduler.handle(Tick(10)) == (Ended('a', Ending.DEADLINE),)
    assert scheduler.next_work() == Idle()


def test_work_given_up_for_a_question_that_goes_on_is_done_again():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    do(scheduler, Rendered((5, 5), 2))
    do(scheduler, Prefilled())
    given_up, _ = do(scheduler, GivenUp())
    assert given_up == Prefill('a', 7, 12)
    assert do(scheduler, Prefilled())[0] == given_up
    assert scheduler.next_work() == Decode('a')


def test_questions_are_answered_in_the_order_they_came():
    scheduler = make_scheduler()
    for name in 'abc':
        scheduler.handle(QuestionAsked(name))
    order = []
    for _ in 'abc':
        order.append(works_until_decode(scheduler)[-1].request_id)
        scheduler.handle(WorkDone(Decode(order[-1]), Decoded(is_last=True)))
    assert order == ['a', 'b', 'c']


def test_a_full_queue_turns_the_newcomer_away_and_says_how_full_it_is():
    scheduler = make_scheduler(max_waiting=1)
    scheduler.handle(QuestionAsked('running'))
    scheduler.handle(QuestionAsked('waiting'))
    assert scheduler.handle(QuestionAsked('late')) == (Rejected('late', 1, 1),)
    assert scheduler.request_ids == ('running', 'waiting')


def test_with_no_room_to_wait_one_question_is_still_taken():
    scheduler = make_scheduler(max_waiting=0)
    assert scheduler.handle(QuestionAsked('a')) == ()
    assert scheduler.handle(QuestionAsked('b')) == (Rejected('b', 0, 0),)


@pytest.mark.parametrize('steps', range(6))
def test_a_cancel_takes_effect_in_every_phase(steps):
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    outcomes = [
        Prepared(),
        Rendered((100, 50), 0, (frame(1),)),
        Encoded(10),
        Prefilled(),
        Prefilled(),
        Decoded(is_last=False),
    ]
    for outcome in outcomes[:steps]:
        do(scheduler, outcome)
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED),)
    assert scheduler.next_work() == Idle()


def test_a_cancel_while_work_is_under_way_ends_the_question_at_once():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    scheduler.handle(QuestionAsked('b'))
    do(scheduler, Prepared())
    do(scheduler, Rendered((5,), 0, (frame(1),)))
    encode = scheduler.next_work()
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED),)
    assert scheduler.handle(WorkDone(encode, Encoded(10))) == ()
    assert scheduler.next_work() == Render('b')
    assert scheduler.has_features(frame(1)), 'what the chip worked for is kept'


@pytest.mark.parametrize('outcome', [Prefilled(), Failed(), Decoded(is_last=True)])
def test_a_request_id_asked_anew_is_another_question_than_the_one_still_under_way(outcome):
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    do(scheduler, Rendered((5,)))
    if isinstance(outcome, Decoded):
        do(scheduler, Prefilled())
    work = scheduler.next_work()
    scheduler.handle(Cancelled('a'))
    assert scheduler.handle(QuestionAsked('a')) == ()
    assert scheduler.handle(WorkDone(work, outcome)) == ()
    assert scheduler.next_work() == Render('a')


def test_a_waiting_question_can_be_cancelled():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    scheduler.handle(QuestionAsked('b'))
    assert scheduler.handle(Cancelled('b')) == (Ended('b', Ending.CANCELLED),)
    assert 'b' not in scheduler


def test_to_cancel_an_unknown_question_does_nothing():
    assert make_scheduler().handle(Cancelled('nobody')) == ()


def test_overdue_questions_end_where_they_stand_and_none_is_started_for_it():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', deadline_ns=10))
    scheduler.handle(QuestionAsked('b', deadline_ns=5))
    scheduler.handle(QuestionAsked('c'))
    assert scheduler.handle(Tick(4)) == ()
    assert set(scheduler.handle(Tick(10))) == {
        Ended('a', Ending.DEADLINE),
        Ended('b', Ending.DEADLINE),
    }
    assert scheduler.next_work() == Render('c')


def test_failed_work_ends_its_question_and_no_other():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    scheduler.handle(QuestionAsked('b'))
    _, notices = do(scheduler, Failed())
    assert notices == (Ended('a', Ending.FAILED),)
    assert scheduler.next_work() == Render('b')


def test_features_beyond_the_bound_are_given_up_when_nobody_uses_them():
    scheduler = make_scheduler(max_cached_frames=1)
    frames = (frame(1), frame(2))
    scheduler.handle(QuestionAsked('a', frames))
    works_until_decode(scheduler, frames=frames)
    notices = scheduler.handle(WorkDone(Decode('a'), Decoded(is_last=True)))
    assert notices == (Ended('a', Ending.ANSWERED), Evicted(frame(1)))


def test_an_arrived_frame_is_encoded_while_there_is_no_question():
    scheduler = make_scheduler()
    scheduler.handle(FrameArrived(frame(1)))
    assert do(scheduler, Prepared())[0] == Prepare(AHEAD, frame(1))
    assert do(scheduler, Encoded(10))[0] == Encode(AHEAD, frame(1))
    assert scheduler.next_work() == Idle()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    assert scheduler.next_work() == Render('a')


def test_a_question_comes_before_arrived_frames():
    scheduler = make_scheduler()
    scheduler.handle(FrameArrived(frame(1)))
    do(scheduler, Prepared())
    scheduler.handle(QuestionAsked('a', (frame(2),)))
    assert scheduler.next_work() == Prepare('a', frame(2))


def test_of_arrived_frames_the_newest_of_each_camera_counts():
    scheduler = make_scheduler()
    for number in range(5):
        scheduler.handle(FrameArrived(frame(number)))
    scheduler.handle(FrameArrived(frame(0, 'rear')))
    encoded = []
    while (work := scheduler.next_work()) != Idle():
        is_encode = isinstance(work, Encode)
        encoded += [work.frame] if is_encode else []
        scheduler.handle(WorkDone(work, Encoded(1) if is_encode else Prepared()))
    assert encoded == [frame(4), frame(0, 'rear')]


def test_a_frame_that_cannot_be_encoded_ahead_is_left_alone():
    scheduler = make_scheduler()
    scheduler.handle(FrameArrived(frame(1)))
    do(scheduler, Failed())
    assert scheduler.next_work() == Idle()


def test_work_is_given_out_one_item_at_a_time():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    work = scheduler.next_work()
    with pytest.raises(RuntimeError, match='under way'):
        scheduler.next_work()
    with pytest.raises(ValueError, match='not under way'):
        scheduler.handle(WorkDone(Decode('a'), Decoded(is_last=False)))
    scheduler.handle(WorkDone(work, Rendered((5,))))
    assert scheduler.next_work() == Prefill('a', 0, 5)


@pytest.mark.parametrize('request_id', ['', 'a'])
def test_a_request_id_is_asked_once(request_id):
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    with pytest.raises(ValueError, match='request_id'):
        scheduler.handle(QuestionAsked(request_id))
