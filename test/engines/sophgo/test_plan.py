"""How prompts are cut into pieces for the prefill nets and steps of the decode nets: as cheap as
any way, and what of the cache is kept for it."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vlm_ros.core import CancelledError
from edge_vlm_ros.engines.sophgo.costs import Bench, measure_costs
from edge_vlm_ros.engines.sophgo.plan import PieceRule, Planner, RunCosts

CONTEXT = 40


def rule(rows, history=0, *, may_step=True, context=CONTEXT):
    def room(held):
        return min(rows, context - held) if held <= history else 0

    return PieceRule(room, history, may_step)


STATIC, HISTORY = rule(8), rule(8, 16)
DYNAMIC, CHUNKS = rule(8, may_step=False), rule(8, 16, may_step=False)
DEAR_STEPS = RunCosts(((CONTEXT, 1.0),), run_s=0.5)


def nothing(_):
    return 0.0


def plan(a_rule, tokens, held, costs=DEAR_STEPS):
    return list(Planner(costs, a_rule).plan(held, tokens))


def cost_of(pieces, held, a_rule, costs):
    """Add up a plan, checking each piece against what the nets take there."""
    total = 0.0
    for piece in pieces:
        if piece == 1:
            total += costs.step(held)
        else:
            assert 2 <= piece <= a_rule.room(held)
            total += costs.run_s + costs.token_s * piece
        held += piece
    return total


def cheapest(held, tokens, a_rule, costs):
    """Try everything: any piece that the nets take, or a step, anywhere."""

    @cache
    def rest(at):
        left = held + tokens - at
        if not left:
            return 0.0
        room = min(a_rule.room(at), left)
        ways = [
            costs.run_s + costs.token_s * piece + rest(at + piece) for piece in range(2, room + 1)
        ]
        if a_rule.may_step or not ways:
            ways.append(costs.step(at) + rest(at + 1))
        return min(ways)

    return rest(held)


@st.composite
def cases(draw):
    """A rule, costs, what is held, what comes; a piece costs a step or more, its tokens less."""
    rows, history = draw(st.integers(2, 9)), draw(st.sampled_from([0, 3, 8, 16]))
    context = draw(st.integers(history + rows, CONTEXT))
    middle = draw(st.integers(1, context))
    low = draw(st.integers(1, 9))
    steps = tuple(sorted({middle: float(low), context: low + draw(st.floats(0, 5))}.items()))
    costs = RunCosts(steps, draw(st.floats(steps[-1][1], 60)), draw(st.floats(0, low)))
    held = draw(st.integers(0, context - 1))
    tokens = draw(st.integers(1, context - held))
    return rule(rows, history, context=context), costs, held, tokens


@given(cases())
@settings(max_examples=300, deadline=None)
def test_no_plan_is_cheaper(case):
    a_rule, costs, held, tokens = case
    pieces = plan(a_rule, tokens, held, costs)
    assert sum(pieces) == tokens
    assert cost_of(pieces, held, a_rule, costs) == pytest.approx(
        cheapest(held, tokens, a_rule, costs)
    )


@given(cases(), st.floats(0, 30))
@settings(max_examples=200, deadline=None)
def test_no_cut_of_what_is_held_is_cheaper(case, extra_s):
    """Of all places to go on from, with all ways from there."""
    a_rule, costs, held, tokens = case

    def costs_at(at):
        return cheapest(at, held + tokens - at, a_rule, costs) + (extra_s if at < held else 0.0)

    kept = Planner(costs, a_rule).keep(held, held + tokens, lambda _: extra_s)
    assert 0 <= kept <= held
    assert costs_at(kept) == pytest.approx(min(map(costs_at, range(held + 1))))


@given(st.integers(0, 39), st.integers(1, 40), st.sampled_from([DYNAMIC, CHUNKS]))
@settings(deadline=None)
def test_where_pieces_run_their_real_length_no_step_is_taken_in_their_place(held, tokens, a_rule):
    """Images of cross-attention layers can only be shown to a piece."""
    tokens = min(tokens, CONTEXT - held)
    costs = RunCosts(((CONTEXT, 1e-6),), run_s=1.0, token_s=0.1)
    at = held
    for piece in plan(a_rule, tokens, held, costs):
        left = held + tokens - at
        assert piece > 1 or min(a_rule.room(at), left) < 2
        at += piece
    assert at == held + tokens


def test_an_empty_cache_takes_a_whole_prompt_at_once():
    assert plan(STATIC, 6, 0) == [6]


def test_a_static_build_goes_on_token_by_token():
    assert plan(STATIC, 3, 6) == [1, 1, 1]
    assert plan(STATIC, 10, 0) == [8, 1, 1]


def test_a_build_with_history_goes_on_by_pieces_as_far_as_its_history_reaches():
    assert plan(CHUNKS, 20, 0) == [8, 8, 4]
    assert plan(CHUNKS, 12, 16) == [8, 1, 1, 1, 1]


def test_a_piece_ends_where_another_one_can_still_begin():
    """Not 8 of them and 8 steps behind the history."""
    assert plan(HISTORY, 16, 12, RunCosts(((CONTEXT, 1.0),), run_s=2.0)) == [4, 8, 1, 1, 1, 1]


def test_few_tokens_go_through_the_decode_nets_where_that_was_measured_to_be_faster():
    assert plan(STATIC, 5, 0, RunCosts(((CONTEXT, 0.1),), 1.0)) == [1] * 5
    assert plan(STATIC, 5, 0, RunCosts(((CONTEXT, 0.3),), 1.0)) == [5]
    assert plan(DYNAMIC, 5, 0, RunCosts(((CONTEXT, 0.1),), 1.0)) == [5]


QWEN2_VL_7B = RunCosts(((1536, 0.1088),), run_s=3.80)
"""Seq 1536, features cached. Source: reference/ahead-of-the-question.md, section 1.10."""


@pytest.mark.parametrize(('question', 'seconds'), [(5, 0.55), (12, 1.31), (34, 3.7), (60, 3.80)])
def test_a_question_after_a_prefix_takes_steps_or_starts_again_as_is_cheaper(question, seconds):
    whole = rule(1536, context=1536)
    planner = Planner(QWEN2_VL_7B, whole)
    held = 1200
    kept = planner.keep(held, held + question, nothing)
    pieces = planner.plan(kept, held + question - kept)
    assert cost_of(pieces, kept, whole, QWEN2_VL_7B) <= seconds
    assert kept == (held if question < 35 else 0)


def test_a_prefix_past_the_history_is_cut_to_its_border():
    costs = RunCosts(((CONTEXT, 1.0),), run_s=3.0)
    planner = Planner(costs, HISTORY)
    assert planner.keep(18, 24, nothing) == 16, 'two rows again and six new ones in a piece'
    assert planner.keep(18, 20, nothing) == 18, 'two steps'
    assert planner.keep(12, 20, nothing) == 12


# --- what is measured ----------------------------------------------------------------------------


class TimedNets:
    """Nets that only take time, on a clock of their own; first runs are slower."""

    def __init__(self, layers, piece_s, step_s):
        self.layers, self.piece_s, self.step_s = layers, piece_s, step_s
        self.now, self.runs = 0.0, 0
        self.warm = set()

    def _take(self, what, seconds):
        self.now += seconds + (0.0 if what in self.warm else 0.5)
        self.warm.add(what)

    def run_piece(self, held, tokens, should_stop):
        self._take(('before', tokens), 0.01)
        for layer in range(self.layers):
            if should_stop():
                raise CancelledError('enough')
            self.runs += 1
            self._take((layer, tokens), self.piece_s(tokens) / self.layers)

    def run_step(self, held):
        self._take(('step', held), self.step_s(held))

    def bench(self, *, is_fixed, capacities=(512, 1536), rows=512):
        return Bench(
            self.layers, rows, 0, capacities, is_fixed, self.run_piece, self.run_step, self.clock
        )

    def clock(self):
        return self.now


@pytest.mark.parametrize('layers', [1, 2, 28])
def test_costs_of_static_nets_are_measured_on_a_few_layers(layers):
    nets = TimedNets(layers, lambda tokens: 2.0, lambda held: 0.1 if held < 512 else 0.2)
    costs = measure_costs(nets.bench(is_fixed=True))
    assert nets.runs <= 6
    assert costs.run_s == pytest.approx(2.01)
    assert costs.token_s == 0.0
    assert [costs.step(held) for held in (0, 512, 513, 1536)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.2]
    )


def test_costs_of_dynamic_nets_are_a_line():
    nets = TimedNets(28, lambda tokens: 0.2 + 0.01 * tokens, lambda held: 0.1)
    costs = measure_costs(nets.bench(is_fixed=False))
    assert nets.runs <= 12
    for tokens in (2, 100, 512):
        assert costs.piece(tokens) == pytest.approx(0.21 + 0.01 * tokens)


def test_noise_makes_no_piece_cheaper_the_longer_it_is():
    nets = TimedNets(3, lambda tokens: 1.0 / tokens, lambda held: 0.1)
    costs = measure_costs(nets.bench(is_fixed=False))
    assert costs.token_s == 0.0
    assert costs.run_s > 0.0
