"""How prompts are cut into pieces for the prefill nets and steps of the decode nets."""

from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.engines.sophgo.plan import StepCosts, cut


def static(held):
    return 0 if held else 8


def history(held):
    return min(8, 40 - held) if held <= 16 else 0


def test_an_empty_cache_takes_a_whole_prompt_at_once():
    assert list(cut(6, 0, static, StepCosts())) == [6]


def test_a_static_build_goes_on_token_by_token():
    assert list(cut(3, 6, static, StepCosts())) == [1, 1, 1]
    assert list(cut(10, 0, static, StepCosts())) == [8, 1, 1]


def test_a_build_with_history_goes_on_by_pieces_as_far_as_its_history_reaches():
    assert list(cut(20, 0, history, None)) == [8, 8, 4]
    assert list(cut(12, 16, history, None)) == [8, 1, 1, 1, 1]


def test_few_tokens_go_through_the_decode_nets_where_that_was_measured_to_be_faster():
    costs = StepCosts()
    costs.note_piece(1.0)
    assert list(cut(5, 0, static, costs)) == [5]  # a step's cost is not known yet
    costs.note_step(0.1)
    assert list(cut(5, 0, static, costs)) == [1] * 5
    assert list(cut(5, 0, static, None)) == [5]  # the nets run the real length
    slow = StepCosts(piece_s=1.0, step_s=0.3)
    assert list(cut(5, 0, static, slow)) == [5]


def test_costs_follow_what_is_measured():
    costs = StepCosts()
    for _ in range(40):
        costs.note_step(0.5)
        costs.note_piece(2.0)
    costs.note_step(0.1)
    assert 0.1 < costs.step_s < 0.5
    assert costs.piece_s == 2.0


@given(st.integers(0, 60), st.integers(0, 40), st.floats(0, 2), st.floats(0, 2))
def test_pieces_add_up_and_fit(tokens, held, piece_s, step_s):
    for room in (static, history):
        at = held
        for piece in cut(tokens, held, room, StepCosts(piece_s, step_s)):
            assert piece == 1 or piece <= room(at)
            at += piece
        assert at == held + tokens
