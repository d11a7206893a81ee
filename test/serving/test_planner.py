"""An answer within a given time: what is given up for it, and that the answer says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import (
    BadRequestError,
    Question,
    Readiness,
    SamplingOptions,
    ShownAs,
    check_question,
)
from edge_vlm_ros.serving.cost_model import CostModel

SCRIPT = {
    'answers': [{'answer': 'one two three four five six seven eight nine ten eleven twelve'}],
    # A frame takes far longer than anything else, so that a busy machine changes no choice.
    'latency': {
        'encode_tile_s': 0.4,
        'prefill_call_s': 0.01,
        'prefill_token_s': 0.001,
        'decode_s': 0.004,
        'head_s': 0.001,
    },
}


@given(
    base=st.floats(0, 50),
    per_token=st.floats(0, 2),
    per_held=st.floats(0, 0.2),
    sizes=st.lists(
        st.tuples(st.integers(1, 128), st.integers(0, 2000)), min_size=4, max_size=20, unique=True
    ),
)
def test_the_three_numbers_are_found_again(base, per_token, per_held, sizes):
    model = CostModel()
    for tokens, held in sizes:
        model.note_prefill(tokens, held, base + per_token * tokens + per_held * held)
    for tokens, held in sizes:
        expected = base + per_token * tokens + per_held * held
        assert model.prefill_ms([tokens], held) == pytest.approx(expected, rel=0.02, abs=0.5)


def test_pieces_follow_each_other():
    model = CostModel()
    for held in (0, 128, 256, 384):
        model.note_prefill(128, held, 10 + held / 128)
    assert model.prefill_ms([128, 128], 128) == pytest.approx(11 + 12)
    assert model.prefill_ms([], 128) == 0.0
    assert CostModel().prefill_ms([128], 0) == 0.0


@given(
    st.lists(
        st.tuples(st.integers(1, 128), st.integers(0, 2000), st.floats(0, 1e4)),
        min_size=1,
        max_size=20,
    )
)
def test_no_work_gives_time_back(samples):
    model = CostModel()
    for sample in samples:
        model.note_prefill(*sample)
    assert model.prefill_ms([1, 5, 100], 7) >= 0.0


@pytest.fixture
def vlm(open_scripted):
    return open_scripted(**SCRIPT)


def ask(vlm, frames, max_latency_s, **more):
    question = Question('Well?', frames=tuple(frames), max_latency_s=max_latency_s, **more)
    answer = vlm.ask(question).answer(60)
    assert answer.success, answer.message
    return answer


@pytest.fixture
def clip(frame):
    return [frame(20 * n, stamp_ns=n + 1, received_ns=n + 1) for n in range(8)]


def test_with_time_enough_nothing_is_given_up(vlm, clip):
    answer = ask(vlm, clip, 60.0)
    assert len(answer.frames) == 8
    assert answer.message == ''
    assert answer.text == ask(vlm, clip, 0.0).text


def test_moments_of_a_clip_are_given_up_the_newest_stays(vlm, clip):
    """Eight frames take 3.2 s to encode alone."""
    answer = ask(vlm, clip, 2.0)
    assert 1 <= len(answer.frames) < 8
    assert answer.frames[-1].stamp_ns == 8
    assert f'{len(answer.frames)} of 8 frames were shown' in answer.message
    assert 'not the newest' not in answer.message


def test_what_is_ready_costs_nothing(vlm, clip):
    ask(vlm, clip, 0.0)
    answer = ask(vlm, clip, 2.0)
    assert len(answer.frames) == 8
    assert answer.readiness is Readiness.PREFIX


def test_the_answer_is_cut_where_there_is_no_time_for_more(vlm, clip):
    ask(vlm, clip, 0.0)
    answer = ask(vlm, clip, 0.12)
    assert answer.timings.answer_tokens < ask(vlm, clip, 0.0).timings.answer_tokens
    assert 'tokens are said within 0.12 s' in answer.message


def test_what_cannot_be_done_in_time_is_done_in_the_cheapest_way_and_said(vlm, clip):
    answer = ask(vlm, clip, 0.001)
    assert len(answer.frames) == 1
    assert 'not possible here now' in answer.message
    assert answer.timings.answer_tokens >= 1


def test_an_older_view_that_is_ready_is_better_than_no_answer(vlm, frame):
    """The fresh frame would take a run of the vision tower."""
    old, new = (frame(n, stamp_ns=n, received_ns=n) for n in (1, 2))
    ask(vlm, [old], 0.0, shown_as=ShownAs.AMONG_OTHERS)
    short = SamplingOptions(max_tokens=1)
    within_s = 0.3
    answer = ask(vlm, [old, new], within_s, sampling=short)
    stamps = [each.stamp_ns for each in answer.frames]
    assert stamps == [1], answer.message
    assert 'not the newest' in answer.message


@pytest.mark.parametrize('seconds', [-1.0, float('nan'), float('inf')])
def test_absurd_times_are_refused(seconds):
    with pytest.raises(BadRequestError, match='max_latency_s'):
        check_question(Question('Well?', max_latency_s=seconds))
