"""A question is refused where it is made, with the value and the limit."""

from __future__ import annotations

import pytest
from support.clock import ManualClock

from edge_vlm_ros.core import (
    MAX_QUESTION_BYTES,
    BadRequestError,
    Question,
    SamplingOptions,
    SteadyClock,
    Timings,
)


@pytest.mark.parametrize('text', ['', '   ', '\n\t'])
def test_an_empty_question_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match='empty'):
        Question(text)


def test_a_question_of_a_megabyte_is_refused_with_the_limit() -> None:
    with pytest.raises(BadRequestError, match=f'1000000 bytes, the limit is {MAX_QUESTION_BYTES}'):
        Question('x' * 1_000_000)


def test_the_size_is_counted_in_bytes() -> None:
    Question('é' * (MAX_QUESTION_BYTES // 2))
    with pytest.raises(BadRequestError):
        Question('é' * (MAX_QUESTION_BYTES // 2 + 1))


def test_half_a_surrogate_pair_is_no_crash() -> None:
    assert Question('\ud83d?').text


@pytest.mark.parametrize(
    'options',
    [
        {'temperature': -1.0},
        {'temperature': float('nan')},
        {'top_p': 0.0},
        {'top_p': 1.5},
        {'max_tokens': -1},
        {'top_k': -5},
    ],
)
def test_sampling_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadRequestError):
        SamplingOptions(**options)  # type: ignore[arg-type]


def test_speed_of_an_answer_of_no_or_one_token_is_zero() -> None:
    assert Timings().tokens_per_second == 0.0
    assert Timings(decode_s=0.5, answer_tokens=1).tokens_per_second == 0.0
    assert Timings(decode_s=0.5, answer_tokens=6).tokens_per_second == pytest.approx(10.0)


def test_the_steady_clock_never_goes_back() -> None:
    clock = SteadyClock()
    readings = [clock.now_ns() for _ in range(100)]
    assert readings == sorted(readings)


def test_the_manual_clock_moves_when_it_is_moved() -> None:
    clock = ManualClock()
    clock.advance(1.5)
    assert clock.now_ns() == 1_500_000_000
