"""The great law: prefill ahead and prefill at once give the same tokens."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny_model.prompts import (
    decode_greedily,
    moved,
    prefill_in_cuts,
    random_inputs,
    random_prompt,
    scores,
)

from edge_vlm_ros.core import PromptPart
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model

TOKENS = 6
law = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope='session')
def demo_engine():
    files = find_model('cpu', 'demo')
    engine = open_engine('cpu', files, options={'threads': 1})
    yield engine
    engine.close()


def prompt_of(engine, seed, images):
    px, rows = engine.limits.tile_px, engine._vision.rows_per_tile
    # The last row of the table serves as the placeholder: what stands there is replaced.
    last = engine.limits.vocab_size - 1
    part = random_prompt(seed, images=images, rows=rows, placeholder=last)
    features = {i: engine.encode(random_inputs(seed + i, px=px, rows=rows)) for i in range(images)}
    return part, features


def at_once(engine, part, features):
    engine.kv.truncate(0)
    engine.prefill(part, features)
    return decode_greedily(engine, part.next_position, TOKENS)


def assert_same(engine, part, features, found):
    tokens, rows = at_once(engine, part, features)
    found_tokens, found_rows = found
    assert found_tokens == tokens
    np.testing.assert_allclose(found_rows, rows, atol=1e-4, rtol=1e-4)


def check_cuts(engine, seed, images, cuts):
    part, features = prompt_of(engine, seed, images)
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part, features, [round(cut * len(part)) for cut in cuts])
    assert engine.kv.length == len(part)
    assert_same(engine, part, features, decode_greedily(engine, part.next_position, TOKENS))


def check_new_question(engine, seed, images, cut):
    """Prefix ahead, one question answered, forgotten, another asked."""
    part, features = prompt_of(engine, seed, images)
    prefix = min(round(cut * len(part)), len(part) - 1)
    last = engine.limits.vocab_size - 1
    asked = moved(random_prompt(seed + 1, images=0, rows=0, placeholder=last), prefix)
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part.slice(0, prefix), features)
    engine.prefill(asked, {})
    decode_greedily(engine, asked.next_position, TOKENS)
    engine.kv.truncate(prefix)
    prefill_in_cuts(engine, part.slice(prefix, len(part)), features)
    assert_same(engine, part, features, decode_greedily(engine, part.next_position, TOKENS))


cut_points = st.lists(st.floats(0, 1), max_size=6)


@law
@given(seed=st.integers(0, 1000), images=st.integers(0, 3), cuts=cut_points)
def test_any_chunking_of_a_prompt_gives_the_same_tokens(shared_tiny_engine, seed, images, cuts):
    check_cuts(shared_tiny_engine, seed, images, cuts)


@law
@given(seed=st.integers(0, 1000), images=st.integers(0, 3), cut=st.floats(0, 1))
def test_a_prefix_serves_one_question_after_another(shared_tiny_engine, seed, images, cut):
    check_new_question(shared_tiny_engine, seed, images, cut)


@law
@given(seed=st.integers(0, 1000), images=st.integers(1, 2), cuts=cut_points)
def test_the_demo_model_too_gives_the_same_tokens_however_cut(demo_engine, seed, images, cuts):
    check_cuts(demo_engine, seed, images, cuts)


@law
@given(seed=st.integers(0, 1000), images=st.integers(1, 2), cut=st.floats(0, 1))
def test_the_demo_model_too_answers_one_question_after_another(demo_engine, seed, images, cut):
    check_new_question(demo_engine, seed, images, cut)


def test_a_cut_inside_an_image_splices_the_right_rows(tiny_engine):
    part, features = prompt_of(tiny_engine, 5, 1)
    inside = part.spans[0].start + 1
    prefill_in_cuts(tiny_engine, part, features, [inside])
    assert part.slice(inside, len(part)).spans[0].first_row == 1
    assert_same(tiny_engine, part, features, decode_greedily(tiny_engine, len(part), TOKENS))


def test_the_image_matters(tiny_engine):
    part, features = prompt_of(tiny_engine, 5, 1)
    _, rows = at_once(tiny_engine, part, features)
    other = {0: tiny_engine.encode(random_inputs(99, px=56, rows=4))}
    _, other_rows = at_once(tiny_engine, part, other)
    assert np.abs(rows - other_rows).max() > 0.1


def test_tokens_decoded_one_by_one_equal_the_same_tokens_prefilled(tiny_engine):
    part, features = prompt_of(tiny_engine, 5, 1)
    tokens, _ = at_once(tiny_engine, part, features)
    decoded = scores(tiny_engine)
    tiny_engine.kv.truncate(len(part))
    answer = PromptPart(np.array(tokens, np.int64), np.arange(TOKENS), TOKENS)
    tiny_engine.prefill(moved(answer, len(part)), {})
    np.testing.assert_allclose(scores(tiny_engine), decoded, atol=1e-4, rtol=1e-4)
