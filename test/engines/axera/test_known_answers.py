"""Known answers: whatever the layout, the chunks and what lies in the cache, the tokens are those
of a float model that sees the whole prompt at once."""

from functools import lru_cache

import numpy as np
import pytest

from edge_vlm_ros.core import (
    CancelledError,
    PromptTooLongError,
    VisionSpan,
    join_parts,
    text_part,
)

pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')

from support.axera.prompts import answer, picture, prefill_as_planned
from support.axera.reference import Reference
from support.axera.sets import TINY_LAYOUTS
from support.axera.weights import tiny_weights
from support.tiny_model.prompts import moved, random_prompt, scores

pytestmark = pytest.mark.axera

PLACEHOLDER = 261
ROWS = 4
"""Of one image of the tiny model."""

NOISE = 0.06
"""What rounding to bfloat16 may move a score, in standard deviations of the scores."""

CHIPS = {'tiny-ax630c': 'ax630c'}


@lru_cache
def reference():
    return Reference(tiny_weights())


def words(seed, count, first=0):
    drawn = np.random.default_rng(seed).integers(0, 256, count)
    return text_part(drawn.tolist(), first)


_scored = {}


def reference_scores(part, features, tokens):
    """Score with the reference; most prompts and answers are those of another layout."""
    rows = b''.join(features[i].tobytes() for i in sorted(features))
    key = (part.tokens.tobytes(), part.spans, rows, tuple(tokens))
    if key not in _scored:
        _scored[key] = reference().scores(part, features, tokens)
    return _scored[key]


def check(part, found, features=None):
    """Compare an answer's scores, and its tokens where the reference is sure of them."""
    tokens, rows = found
    expected = reference_scores(part, features or {}, tokens)
    spread = expected.std()
    worst = np.abs(rows - expected).max() / spread
    assert worst < NOISE, f'{len(part)} tokens: scores are {worst:.2f} deviations off'
    ordered = np.sort(expected, axis=-1)
    is_sure = ordered[:, -1] - ordered[:, -2] > 2 * NOISE * spread
    best = expected.argmax(axis=-1)
    np.testing.assert_array_equal(np.array(tokens)[is_sure], best[is_sure])
    return int(is_sure.sum())


def around(made, longest):
    """List lengths around the borders of the first chunks and of all that chunks can take."""
    borders = (0, made.chunk, 2 * made.chunk, 3 * made.chunk, max(made.histories) + made.chunk)
    lengths = {border + off for border in borders for off in (-1, 0, 1)} | {longest}
    return sorted(length for length in lengths if 1 <= length <= longest)


# --- every layout -------------------------------------------------------------------------------


@pytest.fixture(params=TINY_LAYOUTS)
def layout(request):
    return request.param


def open_layout(open_set, layout):
    return open_set(layout, CHIPS.get(layout, 'ax650'))


def test_prompts_of_every_length_around_chunk_borders(open_set, layout):
    """One after another on one engine: rows of longer prompts lie behind those that count."""
    engine = open_layout(open_set, layout)
    lengths = around(TINY_LAYOUTS[layout], engine.limits.longest_prompt)
    sure = 0
    for length in reversed(lengths):
        engine.kv.truncate(0)
        part = words(length, length)
        count = min(2, engine.limits.context_tokens - length)
        if count:
            sure += check(part, answer(engine, part, count=count))
    assert sure >= len(lengths), 'the reference must be sure of most tokens to tell anything'


def test_images_one_to_eight(open_set, layout):
    engine = open_layout(open_set, layout)
    shown = [picture(seed) for seed in range(8)]
    seen = [engine.encode(inputs) for inputs in shown]
    expected = [reference().see(inputs.pixels) for inputs in shown]
    for images in (1, 2, 4, 8):
        part = random_prompt(images, images=images, rows=ROWS, placeholder=PLACEHOLDER)
        if (
            len(part) + 3 > engine.limits.context_tokens
            or len(part) > engine.limits.longest_prompt
        ):
            continue
        engine.kv.truncate(0)
        found = answer(engine, part, dict(enumerate(seen)))
        check(part, found, dict(enumerate(expected)))


def test_a_second_turn_starts_anywhere(open_set, layout):
    engine = open_layout(open_set, layout)
    for first in (1, 5, 16, 21, 31):
        engine.kv.truncate(0)
        part = words(first, first)
        tokens, _ = answer(engine, part, count=4)
        said = text_part(tokens, part.next_position)
        second = words(first + 100, 23, said.next_position)
        check(join_parts([part, said, second]), answer(engine, second))


def test_limits_are_those_of_the_files(open_set, layout):
    engine = open_layout(open_set, layout)
    made = TINY_LAYOUTS[layout]
    limits = engine.limits
    assert limits.context_tokens == max(made.capacities)
    assert limits.prefill_chunk == made.chunk
    assert limits.longest_prompt >= max(made.histories) + made.chunk
    assert (limits.vocab_size, limits.hidden_size, limits.tile_px) == (262, 64, 56)
    assert limits.can_extend_prefix
    assert limits.has_logits


# --- what lies in the cache ---------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['tiny-17', 'tiny-irregular'])
def test_prompts_of_every_length(open_set, kind):
    engine = open_set(kind)
    for length in range(1, 70):
        engine.kv.truncate(0)
        part = words(length, length)
        check(part, answer(engine, part, count=1))


@pytest.mark.parametrize('kind', ['tiny', 'tiny-irregular', 'tiny-decode-groups'])
def test_after_a_cut_anywhere(open_set, kind):
    engine = open_set(kind)
    whole = words(0, 100)
    for kept in (99, 97, 96, 95, 64, 33, 17, 16, 15, 1, 0):
        engine.kv.truncate(0)
        prefill_as_planned(engine, whole)
        engine.decode(7, 100)
        engine.kv.truncate(kept)
        assert engine.kv.length == kept
        rest = words(kept + 1, 19, kept)
        check(join_parts([whole.slice(0, kept), rest]), answer(engine, rest))


def test_a_prompt_in_the_caller_s_own_pieces(open_set):
    engine = open_set('tiny')
    part = random_prompt(7, images=3, rows=ROWS, placeholder=PLACEHOLDER)
    shown = [picture(seed) for seed in range(3)]
    features = {i: engine.encode(inputs) for i, inputs in enumerate(shown)}
    expected = {i: reference().see(inputs.pixels) for i, inputs in enumerate(shown)}
    for step in (1, 3, 7, 16):
        engine.kv.truncate(0)
        for start in range(0, len(part), step):
            prefill_as_planned(engine, part.slice(start, start + step), features)
        spread_rows = scores(engine)[None]
        best = int(spread_rows.argmax())
        check(part, ([best], spread_rows), expected)


@pytest.mark.parametrize('kind', ['tiny', 'tiny-fixed', 'tiny-decode-groups'])
def test_a_context_filled_to_the_last_token(open_set, kind):
    engine = open_set(kind)
    context, longest = engine.limits.context_tokens, engine.limits.longest_prompt
    part = words(1, min(longest, context - 12))
    tokens, rows = answer(engine, part, count=context - len(part))
    assert engine.kv.length == context
    step = max(1, len(tokens) // 16)
    expected = reference_scores(part, {}, tokens)
    worst = np.abs(rows - expected).max() / expected.std()
    assert worst < NOISE, f'scores are {worst:.2f} deviations off'
    check(part, (tokens[: 16 * step], rows[: 16 * step]))
    last = scores(engine)
    with pytest.raises(PromptTooLongError, match=str(context)):
        engine.decode(1, context)
    with pytest.raises(PromptTooLongError, match=str(context)):
        engine.prefill(text_part([1], context), {})
    np.testing.assert_array_equal(scores(engine), last)


def test_rows_that_nobody_wrote_are_not_seen(open_set):
    """Fresh memory is not a number, and a hidden row still takes part: 0 times it is it."""
    for first in (1, 15, 17):
        engine = open_set('tiny-irregular')
        part = words(first, first)
        prefill_as_planned(engine, part)
        assert np.isfinite(scores(engine)).all()
        more = words(3, 21, first)  # starts inside a history that is not full
        check(join_parts([part, more]), answer(engine, more))


def test_a_prompt_given_up_leaves_the_cache_as_it_was(open_set):
    engine = open_set('tiny')
    part, given_up, after = words(1, 21), words(2, 40, 21), words(3, 18, 21)
    prefill_as_planned(engine, part)
    for calls in range(4):
        left = iter([False] * calls)
        with pytest.raises(CancelledError):
            engine.prefill(given_up, {}, lambda left=left: next(left, True))
        assert engine.kv.length == 21
    check(join_parts([part, after]), answer(engine, after))


def test_positions_are_data_and_may_jump(open_set):
    engine = open_set('tiny')
    part = words(1, 40)
    near = answer(engine, part, count=1)[1]
    engine.kv.truncate(0)
    far = answer(engine, moved(part, 100), count=1)[1]
    # Rotations are relative: the whole prompt moved changes nothing, a part of it does.
    np.testing.assert_allclose(far, near, atol=NOISE * near.std())
    engine.kv.truncate(20)
    prefill_as_planned(engine, moved(part, 40).slice(20, 40))
    assert np.abs(scores(engine) - near[0]).max() > 2 * NOISE * near.std()


def test_a_span_may_start_inside_an_image(open_set):
    engine = open_set('tiny')
    inputs = picture(5)
    features = {0: engine.encode(inputs)}
    tokens = text_part([1, 2] + [PLACEHOLDER] * ROWS + [3], 0)
    part = join_parts([tokens])
    part = type(part)(part.tokens, part.positions, part.next_position, (VisionSpan(0, 2, 6),))
    prefill_as_planned(engine, part.slice(0, 4), features)
    found = answer(engine, part.slice(4, 7), features)
    check(part, found, {0: reference().see(inputs.pixels)})


def test_two_engines_do_not_share_caches(open_set):
    one, other = open_set('tiny'), open_set('tiny')
    part, more = words(1, 30), words(2, 9, 30)
    prefill_as_planned(one, part)
    check(words(3, 44), answer(other, words(3, 44)))
    check(join_parts([part, more]), answer(one, more))
