"""What the scheduler does next, step by step."""

from __future__ import annotations

import pytest

from edge_vlm_ros.core import ArrivalTime, FeatureKey, FrameKey, Priority, ShownAs
from edge_vlm_ros.scheduling import (
    Cancelled,
    Decode,
    Decoded,
    Encode,
    Encoded,
    Ended,
    Ending,
    Evicted,
    Failed,
    FrameOwner,
    FramesOffered,
    GivenUp,
    Idle,
    LeftOut,
    OfferEnded,
    Prefill,
    Prefilled,
    Prepare,
    Prepared,
    QuestionAsked,
    QuestionOwner,
    Rejected,
    Render,
    Rendered,
    Scheduler,
    SchedulerSettings,
    Tick,
    WorkDone,
)


def frame(number, camera='front', shown_as=ShownAs.ALONE):
    """Name the features of one frame."""
    key = FrameKey(camera, '/image', number, ArrivalTime(number))
    return FeatureKey((key,), shown_as)


def question(request_id):
    return QuestionOwner(request_id)


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
        Prepare(question('a'), frame(1)),
        Prepare(question('a'), frame(2)),
        Render(question('a')),
        Encode(question('a'), frame(1)),
        Encode(question('a'), frame(2)),
        Prefill(question('a'), 0, 100),
        Prefill(question('a'), 100, 200),
        Prefill(question('a'), 200, 250),
        Decode(question('a')),
    ]
    assert scheduler.handle(WorkDone(Decode(question('a')), Decoded(is_last=False))) == ()
    assert do(scheduler, Decoded(is_last=True)) == (
        Decode(question('a')),
        (Ended('a', Ending.ANSWERED),),
    )
    assert scheduler.next_work() == Idle()


def test_frames_whose_features_are_kept_are_not_prepared_or_encoded_again():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    works_until_decode(scheduler, frames=[frame(1)])
    scheduler.handle(WorkDone(Decode(question('a')), Decoded(is_last=True)))
    scheduler.handle(QuestionAsked('b', (frame(1), frame(2))))
    works = works_until_decode(scheduler, frames=[frame(1), frame(2)])
    assert works[:3] == [
        Prepare(question('b'), frame(2)),
        Render(question('b')),
        Encode(question('b'), frame(2)),
    ]


def test_only_the_part_of_the_prompt_that_the_cache_lacks_is_prefilled():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    works = works_until_decode(scheduler, pieces=(70,), reused_tokens=180)
    assert works[1:3] == [Prefill(question('a'), 180, 250), Decode(question('a'))]


def test_a_prompt_is_prefilled_in_the_pieces_that_were_planned():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    works = works_until_decode(scheduler, pieces=(1, 128, 7, 1), reused_tokens=20)
    assert works[1:-1] == [
        Prefill(question('a'), 20, 21),
        Prefill(question('a'), 21, 149),
        Prefill(question('a'), 149, 156),
        Prefill(question('a'), 156, 157),
    ]


def test_work_given_up_for_a_question_that_is_over_changes_nothing():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    scheduler.handle(QuestionAsked('b'))
    do(scheduler, Rendered((5, 5)))
    work = scheduler.next_work()
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED),)
    assert scheduler.handle(WorkDone(work, GivenUp())) == ()
    assert scheduler.next_work() == Render(question('b'))


def test_work_given_up_for_want_of_time_ends_with_the_next_tick():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', deadline_ns=10))
    do(scheduler, Rendered((5, 5)))
    assert do(scheduler, GivenUp()) == (Prefill(question('a'), 0, 5), ())
    assert scheduler.handle(Tick(10)) == (Ended('a', Ending.DEADLINE),)
    assert scheduler.next_work() == Idle()


def test_work_given_up_for_a_question_that_goes_on_is_done_again():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    do(scheduler, Rendered((5, 5), 2))
    do(scheduler, Prefilled())
    given_up, _ = do(scheduler, GivenUp())
    assert given_up == Prefill(question('a'), 7, 12)
    assert do(scheduler, Prefilled())[0] == given_up
    assert scheduler.next_work() == Decode(question('a'))


def test_questions_are_answered_in_the_order_they_came():
    scheduler = make_scheduler()
    for name in 'abc':
        scheduler.handle(QuestionAsked(name))
    order = []
    for _ in 'abc':
        order.append(works_until_decode(scheduler)[-1].owner.request_id)
        scheduler.handle(WorkDone(Decode(question(order[-1])), Decoded(is_last=True)))
    assert order == ['a', 'b', 'c']


def answer_all(scheduler):
    """Answer every question; return their names in the order in which they were answered."""
    order = []
    while (last := works_until_decode(scheduler)[-1]) != Idle():
        order.append(last.owner.request_id)
        scheduler.handle(WorkDone(last, Decoded(is_last=True)))
    return order


def test_of_those_that_wait_the_highest_priority_is_next_and_then_the_oldest():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('running'))
    scheduler.next_work()
    asked = {
        'low': Priority.BACKGROUND,
        'a': Priority.NORMAL,
        'stop!': Priority.URGENT,
        'b': Priority.NORMAL,
        'stop!!': Priority.URGENT,
    }
    for name, priority in asked.items():
        scheduler.handle(QuestionAsked(name, priority=priority))
    by_turn = ['stop!', 'stop!!', 'a', 'b', 'low']
    assert scheduler.request_ids == ('running', *by_turn)
    scheduler.handle(WorkDone(Render(question('running')), Rendered((5,))))
    assert answer_all(scheduler) == ['running', *by_turn]


def test_a_question_that_runs_is_not_interrupted_by_a_higher_one():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', priority=Priority.BACKGROUND))
    do(scheduler, Rendered((5, 5)))
    scheduler.handle(QuestionAsked('b', priority=Priority.URGENT))
    assert answer_all(scheduler) == ['a', 'b']


def test_a_question_that_waits_for_work_ahead_has_not_begun():
    scheduler = make_scheduler()
    scheduler.handle(FramesOffered((frame(1),)))
    work = scheduler.next_work()
    for name in 'ab':
        scheduler.handle(QuestionAsked(name))
    scheduler.handle(QuestionAsked('c', priority=Priority.URGENT))
    scheduler.handle(WorkDone(work, Failed()))
    assert answer_all(scheduler) == ['c', 'a', 'b']


def test_an_urgent_question_is_turned_away_too_where_the_queue_is_full():
    scheduler = make_scheduler(max_waiting=1)
    for name in 'ab':
        scheduler.handle(QuestionAsked(name, priority=Priority.BACKGROUND))
    asked = QuestionAsked('c', priority=Priority.URGENT)
    assert scheduler.handle(asked) == (Rejected('c', 1, 1),)


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
    given_up = (Evicted(frame(1)),) if steps in {1, 2} else ()  # pixels that were not encoded
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED), *given_up)
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
    assert do(scheduler, Failed())[0] == Render(question('b'))
    scheduler.handle(QuestionAsked('c', (frame(1),)))
    assert scheduler.next_work() == Render(question('c')), 'what the chip worked for is kept'


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
    assert scheduler.next_work() == Render(question('a'))


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
    assert scheduler.next_work() == Render(question('c'))


def test_failed_work_ends_its_question_and_no_other():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    scheduler.handle(QuestionAsked('b'))
    _, notices = do(scheduler, Failed())
    assert notices == (Ended('a', Ending.FAILED),)
    assert scheduler.next_work() == Render(question('b'))


def test_what_cannot_be_prepared_is_left_out_and_tried_again_by_the_next_question():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1), frame(2))))
    assert do(scheduler, LeftOut()) == (Prepare(question('a'), frame(1)), ())
    assert do(scheduler, Prepared())[0] == Prepare(question('a'), frame(2))
    assert do(scheduler, Rendered((5,), 0, (frame(2),)))[0] == Render(question('a'))
    assert do(scheduler, Encoded(10))[0] == Encode(question('a'), frame(2))
    works_until_decode(scheduler)
    assert scheduler.handle(WorkDone(Decode(question('a')), Decoded(is_last=True))) == (
        Ended('a', Ending.ANSWERED),
    )
    scheduler.handle(QuestionAsked('b', (frame(1), frame(2))))
    assert scheduler.next_work() == Prepare(question('b'), frame(1))


def test_a_cancel_while_something_is_left_out_ends_the_question():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    work = scheduler.next_work()
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED),)
    assert scheduler.handle(WorkDone(work, LeftOut())) == ()
    assert scheduler.next_work() == Idle()


def test_features_beyond_the_bound_are_given_up_when_nobody_uses_them():
    scheduler = make_scheduler(max_cached_frames=1)
    frames = (frame(1), frame(2))
    scheduler.handle(QuestionAsked('a', frames))
    works_until_decode(scheduler, frames=frames)
    notices = scheduler.handle(WorkDone(Decode(question('a')), Decoded(is_last=True)))
    assert notices == (Ended('a', Ending.ANSWERED), Evicted(frame(1)))


def offered(scheduler, *keys):
    return scheduler.handle(FramesOffered(keys))


def prepare_ahead(number, *more):
    return Prepare(FrameOwner(frame(number, *more)), frame(number, *more))


def encode_ahead(number, *more):
    return Encode(FrameOwner(frame(number, *more)), frame(number, *more))


def encoded_ahead(scheduler):
    """Do all work ahead; return the keys in the order in which they were encoded."""
    keys = []
    while (work := scheduler.next_work()) != Idle():
        assert isinstance(work.owner, FrameOwner)
        is_encode = isinstance(work, Encode)
        keys += [work.key] if is_encode else []
        scheduler.handle(WorkDone(work, Encoded(1) if is_encode else Prepared()))
    return keys


def test_an_offered_frame_is_prepared_and_encoded_while_there_is_no_question():
    scheduler = make_scheduler()
    assert offered(scheduler, frame(1)) == ()
    assert do(scheduler, Prepared()) == (prepare_ahead(1), ())
    assert do(scheduler, Encoded(10)) == (encode_ahead(1), (OfferEnded(frame(1)),))
    assert scheduler.next_work() == Idle()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    assert scheduler.next_work() == Render(question('a'))


def test_a_frame_shown_another_way_is_not_ready():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    encoded_ahead(scheduler)
    among = frame(1, shown_as=ShownAs.AMONG_OTHERS)
    scheduler.handle(QuestionAsked('a', (among,)))
    assert scheduler.next_work() == Prepare(question('a'), among)


def test_a_question_comes_before_offered_frames():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    do(scheduler, Prepared())
    scheduler.handle(QuestionAsked('a', (frame(2),)))
    assert scheduler.next_work() == Prepare(question('a'), frame(2))


def test_a_question_waits_for_the_item_under_way_and_no_longer():
    scheduler = make_scheduler()
    offered(scheduler, frame(1), frame(2))
    work = scheduler.next_work()
    scheduler.handle(QuestionAsked('a'))
    scheduler.handle(WorkDone(work, Prepared()))
    works = works_until_decode(scheduler)
    assert {work.owner for work in works} == {question('a')}
    scheduler.handle(WorkDone(works[-1], Decoded(is_last=True)))
    assert scheduler.next_work() == encode_ahead(1), 'and the work goes on after it'


def test_a_question_uses_what_was_prepared_ahead():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    do(scheduler, Prepared())
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    assert do(scheduler, Rendered((5,), 0, (frame(1),)))[0] == Render(question('a'))
    encode, notices = do(scheduler, Encoded(10))
    assert encode == Encode(question('a'), frame(1))
    assert notices == (OfferEnded(frame(1)),), 'done by the question'
    assert do(scheduler, Prefilled())[0] == Prefill(question('a'), 0, 5)
    scheduler.handle(Cancelled('a'))
    assert scheduler.next_work() == Idle()


def test_what_a_question_prepared_serves_the_offer_when_it_is_cancelled():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    offered(scheduler, frame(1))
    assert do(scheduler, Prepared())[0] == Prepare(question('a'), frame(1))
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED),)
    assert scheduler.next_work() == encode_ahead(1)


def test_a_question_uses_what_is_just_being_encoded_ahead():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    do(scheduler, Prepared())
    work = scheduler.next_work()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    scheduler.handle(WorkDone(work, Encoded(10)))
    assert scheduler.next_work() == Render(question('a'))


@pytest.mark.parametrize('step', [Prepare, Encode])
def test_a_frame_that_fails_ahead_is_done_again_for_the_question_that_shows_it(step):
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    if step is Encode:
        do(scheduler, Prepared())
    work = scheduler.next_work()
    scheduler.handle(QuestionAsked('a', (frame(1),)))
    assert scheduler.handle(WorkDone(work, Failed())) == (OfferEnded(frame(1)),)
    assert scheduler.next_work() == Prepare(question('a'), frame(1))


def test_of_offered_frames_the_newest_of_each_camera_counts():
    scheduler = make_scheduler()
    offered(scheduler, frame(0))
    notices = [notice for number in range(1, 5) for notice in offered(scheduler, frame(number))]
    assert notices == [OfferEnded(frame(number)) for number in range(4)]
    assert offered(scheduler, frame(0, 'rear')) == ()
    assert encoded_ahead(scheduler) == [frame(4), frame(0, 'rear')]


def test_one_camera_shown_in_two_ways_is_two_offers():
    scheduler = make_scheduler()
    among = frame(2, shown_as=ShownAs.AMONG_OTHERS)
    offered(scheduler, frame(1))
    assert offered(scheduler, among) == ()
    assert encoded_ahead(scheduler) == [frame(1), among]


def test_an_offer_of_several_frames_counts_whole():
    scheduler = make_scheduler()
    offered(scheduler, frame(1), frame(2), frame(3))
    assert offered(scheduler, frame(2), frame(3), frame(4)) == (OfferEnded(frame(1)),)
    assert encoded_ahead(scheduler) == [frame(2), frame(3), frame(4)]


def test_a_frame_that_was_begun_is_carried_through_however_fast_its_camera():
    scheduler = make_scheduler()
    offered(scheduler, frame(0))
    for number in range(1, 9):
        work = scheduler.next_work()
        offered(scheduler, frame(number))
        outcome = Encoded(1) if isinstance(work, Encode) else Prepared()
        scheduler.handle(WorkDone(work, outcome))
    assert encoded_ahead(scheduler) == [frame(8)]
    scheduler.handle(QuestionAsked('a', (frame(0), frame(2), frame(4), frame(6), frame(8))))
    assert scheduler.next_work() == Render(question('a')), 'every other one got its turn'


def test_a_frame_that_a_question_holds_up_gives_way_to_a_newer_one():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    do(scheduler, Prepared())
    scheduler.handle(QuestionAsked('a'))
    assert offered(scheduler, frame(2)) == (OfferEnded(frame(1)), Evicted(frame(1)))
    scheduler.handle(Cancelled('a'))
    assert encoded_ahead(scheduler) == [frame(2)]


def test_a_fast_camera_does_not_take_the_turns_of_a_slow_one():
    scheduler = make_scheduler()
    encoded = []
    offered(scheduler, frame(0, 'slow'))
    for number in range(1, 21):
        offered(scheduler, frame(number, 'fast'))
        work = scheduler.next_work()
        if isinstance(work, Encode):
            encoded.append(work.key.frames[0].camera)
        if number % 5 == 0:
            offered(scheduler, frame(number, 'slow'))
        scheduler.handle(WorkDone(work, Encoded(1) if isinstance(work, Encode) else Prepared()))
    assert encoded.count('slow') == 4
    assert encoded.count('fast') == 6


def test_a_frame_that_cannot_be_encoded_ahead_is_left_alone():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    assert do(scheduler, Failed())[1] == (OfferEnded(frame(1)),)
    assert scheduler.next_work() == Idle()


def test_a_failure_ahead_ends_neither_question_nor_other_offer():
    scheduler = make_scheduler()
    offered(scheduler, frame(1), frame(2))
    work = scheduler.next_work()
    scheduler.handle(QuestionAsked('a'))
    assert scheduler.handle(WorkDone(work, Failed())) == (OfferEnded(frame(1)),)
    works = works_until_decode(scheduler)
    assert works[0] == Render(question('a'))
    scheduler.handle(WorkDone(works[-1], Decoded(is_last=True)))
    assert encoded_ahead(scheduler) == [frame(2)]


def test_what_is_kept_already_is_not_made_ahead():
    scheduler = make_scheduler()
    offered(scheduler, frame(1))
    encoded_ahead(scheduler)
    assert offered(scheduler, frame(1)) == (OfferEnded(frame(1)),)
    assert scheduler.next_work() == Idle()


def test_work_ahead_keeps_the_bounds_of_the_features():
    scheduler = make_scheduler(max_cached_frames=2)
    notices = []
    for number in range(4):
        offered(scheduler, frame(number))
        do(scheduler, Prepared())
        notices += do(scheduler, Encoded(1))[1]
    evicted = [notice.key for notice in notices if isinstance(notice, Evicted)]
    assert evicted == [frame(0), frame(1)]


def test_no_more_offers_wait_than_features_may_be_kept():
    scheduler = make_scheduler(max_cached_frames=2)
    keys = [frame(0, camera) for camera in 'abc']
    assert offered(scheduler, *keys) == (OfferEnded(keys[0]),)
    assert encoded_ahead(scheduler) == keys[1:]


def test_where_nothing_may_be_kept_nothing_is_made_ahead():
    scheduler = make_scheduler(max_cached_frames=0)
    assert offered(scheduler, frame(1)) == (OfferEnded(frame(1)),)
    assert scheduler.next_work() == Idle()


def test_the_pixels_of_a_cancelled_question_are_given_up():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1), frame(2))))
    do(scheduler, Prepared())
    work = scheduler.next_work()
    assert scheduler.handle(Cancelled('a')) == (Ended('a', Ending.CANCELLED), Evicted(frame(1)))
    assert scheduler.handle(WorkDone(work, Prepared())) == (Evicted(frame(2)),)


def test_the_pixels_that_a_prompt_does_not_need_are_given_up():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a', (frame(1), frame(2))))
    do(scheduler, Prepared())
    do(scheduler, Prepared())
    assert do(scheduler, Rendered((5,), 90, (frame(2),)))[1] == (Evicted(frame(1)),)


def test_work_is_given_out_one_item_at_a_time():
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    work = scheduler.next_work()
    with pytest.raises(RuntimeError, match='under way'):
        scheduler.next_work()
    with pytest.raises(ValueError, match='not under way'):
        scheduler.handle(WorkDone(Decode(question('a')), Decoded(is_last=False)))
    scheduler.handle(WorkDone(work, Rendered((5,))))
    assert scheduler.next_work() == Prefill(question('a'), 0, 5)


@pytest.mark.parametrize('request_id', ['', 'a'])
def test_a_request_id_is_asked_once(request_id):
    scheduler = make_scheduler()
    scheduler.handle(QuestionAsked('a'))
    with pytest.raises(ValueError, match='request_id'):
        scheduler.handle(QuestionAsked(request_id))
