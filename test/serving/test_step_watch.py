"""How much silence a model process is allowed, from what its steps were measured to cost."""

from __future__ import annotations

import pytest

from edge_vlm_ros.core import NS_PER_S, EngineLimits
from edge_vlm_ros.serving import ChipModelInfo, ModelInfo, StageCosts
from edge_vlm_ros.serving.process.step_watch import StepWatch
from edge_vlm_ros.serving.step import REST, Step

START_NS = 1000 * NS_PER_S
LIMITS = EngineLimits(
    context_tokens=4096,
    longest_prompt=4095,
    prefill_chunk=256,
    max_images=0,
    can_extend_prefix=True,
    samples_on_chip=False,
    has_logits=True,
    vocab_size=100,
    hidden_size=8,
)


def watch(stall_s=0.0, **costs):
    info = ChipModelInfo(model='m', chip='c', limits=LIMITS, costs=StageCosts(**costs))
    return StepWatch(info, START_NS, stall_s)


def at(seconds):
    return START_NS + round(seconds * NS_PER_S)


def verdict(watched, seconds, since_ns=0, over_ns=0):
    return watched.verdict(at(seconds), since_ns, over_ns)


def is_told(watched, seconds, since_ns=0):
    return watched.is_told(watched.silence_s(at(seconds), since_ns))


def test_silence_without_work_is_rest():
    watched = watch()
    assert watched.silence_s(at(1e6), 0) == 0
    assert not is_told(watched, 1e6)
    assert not verdict(watched, 1e6)


@pytest.mark.parametrize('stage', ['prepare', 'render', 'encode', 'prefill', 'decode'])
def test_a_step_that_costs_nothing_is_told_of_within_2_s_and_ended_after_the_floor(stage):
    watched = watch()
    watched.hear(START_NS, Step(stage, 'x'))
    assert not is_told(watched, 0.9)
    assert is_told(watched, 1.5)
    assert not verdict(watched, 19.9)
    assert verdict(watched, 20.1) == (
        f'the chip did not finish a step within 20 s (in {stage} of request x)'
    )


@pytest.mark.parametrize(
    ('stage', 'costs'),
    [
        ('encode', {'encode_ms': 4000}),
        ('prefill', {'prefill_ms': 4000}),
        ('decode', {'decode_ms': 4000}),
        ('prepare', {'prepare_ms': 4000}),
    ],
)
def test_a_stage_that_was_measured_to_be_slow_is_given_its_time(stage, costs):
    watched = watch(**costs)
    watched.hear(START_NS, Step(stage, 'x'))
    assert not is_told(watched, 7.9)
    assert is_told(watched, 8.1)
    assert not verdict(watched, 39.9)
    assert '40 s' in verdict(watched, 40.1)
    watched.hear(at(50), Step(stage, 'x', scale=3.0))
    assert not is_told(watched, 50 + 23)
    assert not verdict(watched, 50 + 119)
    assert '120 s' in verdict(watched, 50 + 121)


def test_the_parameter_wins_over_what_was_measured():
    watched = watch(stall_s=2.0, decode_ms=4000)
    watched.hear(START_NS, Step('decode', 'x'))
    assert not verdict(watched, 1.9)
    assert 'within 2 s' in verdict(watched, 2.1)


def test_a_sign_of_life_in_a_step_begins_its_time_anew():
    watched = watch()
    watched.hear(START_NS, Step('decode', 'x'))
    watched.hear(at(19))
    assert not verdict(watched, 38)
    assert verdict(watched, 39.5)


def test_an_ended_question_shortens_the_bound_of_its_step():
    watched = watch(prefill_ms=600)
    watched.hear(START_NS, Step('prefill', 'x'))
    assert not verdict(watched, 9, over_ns=at(5))
    assert 'did not let an ended question go' in verdict(watched, 10.1, over_ns=at(5))
    assert '20 s' in verdict(watched, 20.1, over_ns=at(19)), 'it never makes it longer'


def test_a_final_chunk_of_the_question_at_work_shortens_it_too_and_is_no_sign_of_life():
    watched = watch()
    watched.hear(START_NS, Step('decode', 'x'))
    watched.hear_final('somebody else', at(1))
    assert not verdict(watched, 15)
    watched.hear_final('x', at(2))
    assert not verdict(watched, 6.9)
    assert verdict(watched, 7.1)


def test_the_next_question_is_not_blamed_for_the_end_of_the_last():
    watched = watch()
    watched.hear(START_NS, Step('decode', 'x'))
    watched.hear_final('x', at(1))
    watched.hear(at(2), Step('prefill', 'y'))
    assert not verdict(watched, 15)
    watched.hear(at(20), REST)
    watched.hear_final('x', at(21))
    assert not verdict(watched, 1e6)


def test_a_question_that_nobody_begins_is_silence_too():
    watched = watch()
    assert not is_told(watched, 100.5, since_ns=at(100))
    assert is_told(watched, 101.5, since_ns=at(100))
    assert 'before any work' in verdict(watched, 121, since_ns=at(100))


def test_a_backend_that_measures_nothing_is_given_a_minute_for_a_step_and_less_when_it_is_over():
    watched = StepWatch(ModelInfo(model='m', chip='server'), START_NS)
    watched.hear(START_NS, Step('answer', 'x'))
    assert not is_told(watched, 5.9)
    assert is_told(watched, 6.1)
    assert not verdict(watched, 29.9)
    assert verdict(watched, 30.1)
    assert verdict(watched, 15.1, over_ns=at(0))


def test_steps_are_named_for_people():
    assert str(Step('prefill', 'x')) == 'in prefill of request x'
    assert str(Step('encode')) == 'in encode'
