"""Plans: as cheap as any, within the groups' bounds, and as the published tables say."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_vlm_ros.core import CancelledError
from edge_vlm_ros.engines.axera.costs import GroupCosts, measure_costs
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.plan import Piece, Planner

# Milliseconds of one layer by history / 128, and of a decode step: the vendor's table for
# InternVL3-2B on an AX650N (reference/axera-axengine.md, section 5).
PREFILL_MS = (
    7.483, 10.089, 12.815, 15.235, 18.527, 20.751, 23.520, 25.932, 29.124, 31.727, 34.708,
    36.982, 39.950, 42.418, 45.933, 48.577, 52.405,
)  # fmt: skip
DECODE_MS = 2.686


def shapes_of(prefill, decode, layers=1):
    """`prefill` as (chunk, history), `decode` as capacities."""
    groups = tuple(
        PrefillGroup(len(decode) + i, chunk, history) for i, (chunk, history) in enumerate(prefill)
    )
    steps = tuple(DecodeGroup(i, capacity) for i, capacity in enumerate(decode))
    groups = tuple(sorted(groups, key=lambda g: g.history))
    return StackShapes(layers, 8, 4, 10, 1, 1, groups, steps)


def board_planner(histories=17):
    shapes = shapes_of([(128, 128 * i) for i in range(histories)], [2559])
    prefill = {1 + i: PREFILL_MS[i] for i in range(histories)}
    return Planner(shapes, GroupCosts(prefill, {0: DECODE_MS}))


def cost_of(pieces, held, shapes, costs):
    """Add up a plan, checking every piece against its group's bounds."""
    total, at = 0.0, held
    for piece in pieces:
        assert piece.tokens > 0
        if piece.group is None:
            for row in range(at, at + piece.tokens):
                total += min(costs.decode[g.index] for g in shapes.decode if g.capacity > row)
        else:
            assert piece.tokens <= piece.group.chunk
            assert piece.group.history >= at
            total += costs.prefill[piece.group.index]
        at += piece.tokens
    return total, at


def cheapest(held, tokens, shapes, costs):
    """Try everything: any group, any number of tokens, anywhere."""

    @cache
    def rest(at):
        if at == held + tokens:
            return 0.0
        step = min(costs.decode[g.index] for g in shapes.decode if g.capacity > at)
        ways = [step + rest(at + 1)]
        for group in shapes.prefill:
            if group.history >= at:
                stops = range(at + 1, min(at + group.chunk, held + tokens) + 1)
                ways += [costs.prefill[group.index] + rest(stop) for stop in stops]
        return min(ways)

    return rest(held)


@st.composite
def cases(draw):
    histories = sorted({0, *draw(st.lists(st.integers(1, 14), max_size=4))})
    chunks = draw(st.lists(st.integers(2, 5), min_size=len(histories), max_size=len(histories)))
    capacities = draw(st.sets(st.integers(12, 30), min_size=1, max_size=3))
    shapes = shapes_of(list(zip(chunks, histories, strict=True)), sorted(capacities))
    price = st.integers(1, 20).map(float)
    costs = GroupCosts(
        {group.index: draw(price) for group in shapes.prefill},
        {group.index: draw(price) for group in shapes.decode},
    )
    held = draw(st.integers(0, shapes.capacity - 1))
    tokens = draw(st.integers(1, min(22, shapes.capacity - held)))
    return shapes, costs, held, tokens


@given(cases())
@settings(max_examples=300, deadline=None)
def test_no_plan_is_cheaper(case):
    shapes, costs, held, tokens = case
    pieces = Planner(shapes, costs).plan(held, tokens)
    total, stop = cost_of(pieces, held, shapes, costs)
    assert stop == held + tokens
    assert total == cheapest(held, tokens, shapes, costs)


@given(cases(), st.data())
@settings(max_examples=200, deadline=None)
def test_no_cut_of_what_is_held_is_cheaper(case, data):
    """Of all places to go on from, with all ways from there."""
    shapes, costs, held, tokens = case
    lowest = data.draw(st.integers(0, held))
    planner, total = Planner(shapes, costs), held + tokens
    kept = planner.keep(held, total, lambda at: at >= lowest)
    assert lowest <= kept <= held
    found, _ = cost_of(planner.plan(kept, total - kept), kept, shapes, costs)
    everywhere = [cheapest(at, total - at, shapes, costs) for at in range(lowest, held + 1)]
    assert found == min(everywhere)
    dearest = [at for at in range(lowest, held + 1) if everywhere[at - lowest] == found]
    assert kept == held or held not in dearest, 'nothing is given up for nothing'


@given(cases())
@settings(max_examples=100, deadline=None)
def test_a_piece_planned_again_costs_the_same(case):
    shapes, costs, held, tokens = case
    planner = Planner(shapes, costs)
    at = held
    for piece in planner.plan(held, tokens):
        first = cost_of([piece], at, shapes, costs)
        for again in (planner, Planner(shapes, costs)):
            assert cost_of(again.plan(at, piece.tokens), at, shapes, costs) == first
        assert planner.plan(at, piece.tokens) == (piece,)
        at += piece.tokens


@pytest.mark.parametrize(('behind', 'steps'), [(0, 2), (1024, 10), (2048, 19)])
def test_so_many_tokens_are_cheaper_one_by_one(behind, steps):
    """Break-even at 2.8, 10.8 and 19.5 tokens (reference/ahead-of-the-question.md, 1.2)."""
    planner = board_planner()
    few, more = planner.plan(behind, steps), planner.plan(behind, steps + 1)
    assert {piece.group for piece in few} == {None}
    assert [piece.group is not None for piece in more] == [True]


SYSTEM, FRAME, TAIL, HEAD_MS = 40, 263, 5, 11.455


@pytest.mark.parametrize(
    ('frames', 'question', 'seconds'),
    [
        (1, 32, 0.37), (1, 64, 0.37), (1, 128, 0.80),
        (4, 32, 0.83), (4, 64, 0.90), (4, 128, 1.28),
        (7, 5, 0.76), (7, 32, 1.30), (7, 64, 1.37), (7, 128, 1.75),
        (8, 5, 0.76), (8, 10, 1.14), (8, 20, 1.48), (8, 32, 1.85), (8, 64, 4.26),
    ],
)  # fmt: skip
def test_a_question_after_watched_frames_takes_the_best_of_all_layouts(frames, question, seconds):
    """The table of reference/ahead-of-the-question.md, 1.3: keep whole chunks only (down), the
    padded tail too (up), decode steps (dec), or a chunk and steps."""
    planner = board_planner()
    held = SYSTEM + FRAME * frames
    total = held + question + TAIL
    kept = planner.keep(held, total, lambda _: True)
    shapes = shapes_of([(128, 128 * i) for i in range(17)], [2559])
    costs = GroupCosts({1 + i: ms for i, ms in enumerate(PREFILL_MS)}, {0: DECODE_MS})
    spent, _ = cost_of(planner.plan(kept, total - kept), kept, shapes, costs)
    assert (28 * spent + HEAD_MS) / 1000 <= seconds + 0.005


@pytest.mark.parametrize(
    ('tokens', 'ms'), [(128, 220.979), (384, 862.291), (1152, 4588.783), (2176, 13904.383)]
)
def test_whole_prompts_cost_what_the_vendor_publishes(tokens, ms):
    planner = board_planner()
    pieces = planner.plan(0, tokens)
    assert [piece.tokens for piece in pieces] == [128] * (tokens // 128)
    spent = 28 * sum(PREFILL_MS[piece.group.history // 128] for piece in pieces) + 11.455
    assert spent == pytest.approx(ms, abs=0.01)


def test_a_chunk_ends_at_a_boundary_where_the_next_one_is_then_cheaper():
    planner = board_planner()
    held = 303  # one frame after a system text: 2.37 chunks
    ends = [held + piece.tokens for piece in planner.plan(held, 128 + 81)[:1]]
    assert ends == [384]


def test_what_no_group_has_history_for_goes_step_by_step():
    planner = board_planner(histories=9)
    pieces = planner.plan(0, 1200)
    chunks = [piece for piece in pieces if piece.group is not None]
    assert sum(piece.tokens for piece in chunks) == 1152
    assert sum(piece.tokens for piece in pieces) == 1200
    longest = max(piece.tokens for piece in pieces if piece.group is None)
    assert longest * DECODE_MS <= PREFILL_MS[8]


def test_runs_of_steps_are_whole_pieces():
    pieces = board_planner().plan(2176, 40)
    assert all(a.tokens >= b.tokens for a, b in pairwise(pieces))
    assert pieces[0] == Piece(19, None)


class TimedBackend:
    """A backend that only takes time, on a clock of its own."""

    name = 'timed'
    takes_chunks = True

    def __init__(self, layers, prefill_ms, decode_ms):
        self.layers, self.prefill_ms, self.decode_ms = layers, prefill_ms, decode_ms
        self.now, self.runs = 0.0, 0
        self.warm = set()

    def _run(self, layer, group, ms):
        """Take as long as a chip: a layer's first run of a group is slower."""
        slow = 0.0 if (layer, group.index) in self.warm else 25.0
        self.warm.add((layer, group.index))
        self.now += 1e-3 * (ms + slow)

    def prefill(self, group, embeds, positions, first_row, should_stop, *_):
        assert len(embeds) == positions.shape[-1] <= group.chunk
        assert first_row <= group.history
        for i in range(self.layers):
            if should_stop():
                raise CancelledError('enough')
            self.runs += 1
            self._run(i, group, self.prefill_ms(group))

    def step(self, group, embed, position, row, deepstack=None):
        assert row < group.capacity
        for i in range(self.layers):
            self._run(i, group, self.decode_ms)


@pytest.mark.parametrize('layers', [2, 28])
def test_costs_are_measured_on_a_few_layers_of_a_few_groups(layers):
    shapes = shapes_of([(128, 128 * i) for i in range(17)], [2559], layers)
    backend = TimedBackend(layers, lambda group: PREFILL_MS[group.history // 128], DECODE_MS)
    costs = measure_costs(backend, shapes, lambda: backend.now)
    assert backend.runs <= 18
    assert costs.decode[0] == pytest.approx(DECODE_MS)
    for i, ms in enumerate(PREFILL_MS):
        assert costs.prefill[1 + i] == pytest.approx(ms, abs=1.3)


@given(frames=st.integers(0, 8), question=st.integers(1, 128), at=st.integers(0, 2500))
@settings(max_examples=60, deadline=None)
def test_plans_by_measured_costs_are_close_to_the_floor(frames, question, at):
    """Of a question after frames, and after anything: at most 1.1 of what the true costs allow."""
    shapes = shapes_of([(128, 128 * i) for i in range(17)], [2559], layers=28)
    backend = TimedBackend(28, lambda group: PREFILL_MS[group.history // 128], DECODE_MS)
    measured = Planner(shapes, measure_costs(backend, shapes, lambda: backend.now))
    true = GroupCosts({1 + i: ms for i, ms in enumerate(PREFILL_MS)}, {0: DECODE_MS})

    def spent(planner, held, total):
        kept = planner.keep(held, total, lambda _: True)
        return cost_of(planner.plan(kept, total - kept), kept, shapes, true)[0]

    for held in (SYSTEM + FRAME * frames, at):
        total = min(held + question + TAIL, 2559)
        assert spent(measured, held, total) <= 1.1 * spent(board_planner(), held, total)


def test_where_chunks_are_not_to_be_trusted_prompts_go_step_by_step():
    shapes = shapes_of([(128, 0), (128, 128)], [2559], layers=28)
    backend = TimedBackend(28, lambda group: 7.0, DECODE_MS)
    backend.takes_chunks = False
    planner = Planner(shapes, measure_costs(backend, shapes, lambda: backend.now))
    assert backend.runs == 0
    assert all(piece.group is None for piece in planner.plan(0, 300))
    assert planner.keep(200, 300, lambda _: True) == 200


def test_costs_of_a_set_with_one_layer_and_one_group():
    shapes = shapes_of([(40, 0)], [127])
    backend = TimedBackend(1, lambda group: 5.0, 2.0)
    costs = measure_costs(backend, shapes, lambda: backend.now)
    assert costs.prefill == {1: pytest.approx(5.0)}
    assert costs.decode == {0: pytest.approx(2.0)}


def test_a_cache_of_one_row_is_timed_warm():
    backend = TimedBackend(3, lambda group: 5.0, 2.0)
    costs = measure_costs(backend, shapes_of([(1, 0)], [1], 3), lambda: backend.now)
    assert costs.decode == {0: pytest.approx(2.0)}


def test_a_context_that_is_full_is_no_plan():
    planner = board_planner()
    with pytest.raises(AssertionError):
        planner.plan(2500, 60)


@given(st.integers(0, 2558), st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_plans_of_a_published_build_hold_together(held, tokens):
    assume(held + tokens <= 2559)
    pieces = board_planner().plan(held, tokens)
    assert sum(piece.tokens for piece in pieces) == tokens


def test_pieces_that_are_run_are_not_planned_again(monkeypatch):
    planner = board_planner()
    pieces = planner.plan(303, 900)
    monkeypatch.setattr(planner, '_solve', None)
    at = 303
    for piece in pieces:
        assert planner.plan(at, piece.tokens) == (piece,)
        at += piece.tokens


def test_plans_that_are_kept_are_bounded():
    planner = board_planner(histories=1)
    for held in range(130, 1300):
        planner.plan(held, 1)
    assert len(planner._plans) <= 1000
