"""Closed answers: always one of the choices, the likeliest, with its true probability."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_vlm_ros.core import (
    BadRequestError,
    DeviceError,
    FinishReason,
    SamplingOptions,
    plain_text,
)
from edge_vlm_ros.text import ClosedAnswer, Spelling, TokenSampler, spell
from edge_vlm_ros.text.closed_answer import MOST_STEPS

VOCABULARY = 7
STOPS = frozenset({5, 6})
TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple)
SPELLED = st.lists(TOKENS, min_size=1, max_size=12, unique=True)


def scores_after(path, seed=0, spread=3.0):
    """Return what a model says of the next token: any function of the tokens before it."""
    rng = np.random.default_rng([seed, len(path), *path])
    return (rng.standard_normal(VOCABULARY) * spread).astype(np.float32)


def plain_probabilities(spellings, model):
    """The plain way: renormalise at every place of the trie, the end among what may follow."""
    found = defaultdict(float)

    def walk(below, path, mass):
        if len(below) == 1 and len(below[0].tokens) == len(path):
            found[below[0].choice] += mass
            return
        groups = defaultdict(list)
        for spelling in below:
            rest = spelling.tokens[len(path) :]
            groups[rest[0] if rest else None].append(spelling)
        weights = np.exp(model(path).astype(np.float64))
        weight_of = {
            token: sum(weights[list(STOPS)]) if token is None else weights[token]
            for token in groups
        }
        total = sum(weight_of.values())
        for token, group in groups.items():
            share = mass * weight_of[token] / total
            if token is None:
                found[group[0].choice] += share
            else:
                walk(group, (*path, token), share)

    walk(list(spellings), (), 1.0)
    return found


GREEDY = SamplingOptions()


def search(spellings, model, sampling=GREEDY):
    """Search as the chip's thread does; return the answer and how often scores were wanted."""
    names = [f'choice {number}' for number in range(1 + max(s.choice for s in spellings))]
    answer = ClosedAnswer(names, spellings, STOPS, sampling)
    looks, run = 0, ()
    while not answer.is_done:
        assert answer.reason is FinishReason.NONE
        path = answer.path
        shared = 0
        while shared < min(len(run), len(path)) and run[shared] == path[shared]:
            shared += 1
        for _ in path[shared:]:
            answer.step()
        assert not looks or len(path) > shared, 'scores after a token that is run already'
        run = path
        answer.score(model(path))
        looks += 1
    return answer, looks


@st.composite
def closed_questions(draw):
    """Draw spellings of choices, some with two, and a seed of the model that is asked."""
    listed = draw(SPELLED)
    seconds = draw(st.integers(0, len(listed) // 2))
    firsts = len(listed) - seconds
    numbers = [*range(firsts), *range(seconds)]
    spellings = [Spelling(n, tokens) for n, tokens in zip(numbers, listed, strict=True)]
    return spellings, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.1, 1.0, 4.0]))


@given(closed_questions())
def test_the_answer_is_the_likeliest_choice_with_its_probability(asked):
    spellings, seed, spread = asked
    answer, looks = search(spellings, lambda path: scores_after(path, seed, spread))
    expected = plain_probabilities(spellings, lambda path: scores_after(path, seed, spread))
    assert math.isclose(sum(expected.values()), 1.0)
    ranked = sorted(expected.values(), reverse=True)
    assume(len(ranked) < 2 or ranked[0] - ranked[1] > 1e-6)
    best = max(expected, key=expected.get)
    assert answer.choice == f'choice {best}'
    assert answer.reason is FinishReason.STOP
    assert tuple(answer.tokens) == next(s.tokens for s in spellings if s.choice == best)
    assert answer.probability == pytest.approx(expected[best], abs=1.001e-3)
    assert looks < max(2, len(spellings)), 'as many branches as a trie has at most'


@given(closed_questions(), st.floats(0.2, 5), st.integers(0, 2**32))
def test_a_drawn_choice_is_drawn_by_the_probabilities_of_all(asked, temperature, draw):
    spellings, seed, spread = asked
    sampling = SamplingOptions(temperature=temperature, seed=draw)
    answer, _ = search(spellings, lambda path: scores_after(path, seed, spread), sampling)
    expected = plain_probabilities(spellings, lambda path: scores_after(path, seed, spread))
    assert answer._found.sum() == pytest.approx(1.0), 'of all choices together'
    number = int(answer.choice.split()[1])
    assert answer.probability == pytest.approx(expected[number], rel=1e-6)
    logs = np.log([expected[number] for number in range(len(expected))])
    weights = np.exp((logs - logs.max()) / temperature)
    at = np.random.default_rng(draw).random()
    assume(np.abs(np.cumsum(weights) / weights.sum() - at).min() > 1e-6)
    assert number == TokenSampler(sampling).choose(logs)


@given(closed_questions(), st.integers(0, 2**32))
def test_the_search_ends_whatever_the_scores_say(asked, seed):
    spellings, _, _ = asked
    rng = np.random.default_rng(seed)
    answer, _ = search(spellings, lambda _path: rng.choice([-40.0, 0.0, 40.0], VOCABULARY))
    assert answer.choice
    assert 0.0 <= answer.probability <= 1.0


def fixed(table):
    """Return a model that says what a table says: {path: {token: score}}, -9 for all others."""

    def model(path):
        scores = np.full(VOCABULARY, -9.0, np.float32)
        for token, score in table[path].items():
            scores[token] = score
        return scores

    return model


def test_single_tokens_cost_one_look_at_the_scores_of_the_prompt():
    spellings = [Spelling(0, (1,)), Spelling(1, (2,)), Spelling(0, (3,))]
    answer, looks = search(spellings, fixed({(): {1: 0.0, 2: math.log(3.0), 3: 0.0}}))
    assert (answer.choice, looks) == ('choice 1', 1)
    assert answer.probability == pytest.approx(0.6)


def test_both_spellings_of_a_choice_count():
    spellings = [Spelling(0, (1,)), Spelling(1, (2,)), Spelling(0, (3,))]
    answer, _ = search(spellings, fixed({(): {1: 1.0, 2: 1.2, 3: 1.0}}))
    assert answer.choice == 'choice 0'
    assert tuple(answer.tokens) == (1,), 'said as the caller wrote it'


@pytest.mark.parametrize(('ends', 'choice'), [(2.0, 'choice 0'), (-2.0, 'choice 1')])
def test_where_a_choice_begins_another_the_end_of_the_turn_competes(ends, choice):
    spellings = [Spelling(0, (1,)), Spelling(1, (1, 2))]
    answer, _ = search(spellings, fixed({(1,): {2: 0.0, 5: ends, 6: -30.0}}))
    assert answer.choice == choice
    assert answer.probability == pytest.approx(1 / (1 + math.exp(-abs(ends))))


def test_the_best_choice_is_found_off_the_way_of_the_best_tokens():
    """Token 1 is likelier than 2, but what follows it is split between three."""
    spellings = [Spelling(i, (1, i)) for i in range(3)] + [Spelling(3, (2, 1))]
    model = fixed({(): {1: math.log(0.6), 2: math.log(0.4)}, (1,): {0: 0.0, 1: 0.0, 2: 0.0}})
    answer, looks = search(spellings, model)
    assert (answer.choice, looks) == ('choice 3', 2)
    assert answer.probability == pytest.approx(0.4)


def test_one_choice_needs_no_scores():
    answer, looks = search([Spelling(0, (1, 2)), Spelling(0, (3, 2))], fixed({}))
    assert (answer.choice, answer.probability, looks) == ('choice 0', 1.0, 0)
    assert answer.free_probability is None


def test_how_much_of_the_model_the_choices_have_is_known():
    scores = {token: math.log(p) for token, p in enumerate([0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])}
    answer, _ = search([Spelling(0, (1,)), Spelling(1, (2,))], fixed({(): scores}))
    assert answer.free_probability == pytest.approx(0.3)


def test_hostile_choices_cost_a_bounded_number_of_steps():
    """All branches alike, far from one another: their probabilities would never be known."""
    paths = [tuple(int(bit) for bit in f'{number:08b}') for number in range(256)]
    deep = [(*(path[0],) * 60, *path) for path in paths]
    answer, _ = search(
        [Spelling(number, tokens) for number, tokens in enumerate(deep)],
        fixed(defaultdict(lambda: {0: 0.0, 1: 0.0})),
    )
    assert answer.choice
    assert answer._steps < MOST_STEPS + 80
    assert answer.probability is None, 'not every branch was looked at'


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_nonsense_is_no_score(bad):
    answer = ClosedAnswer('ab', [Spelling(0, (1,)), Spelling(1, (2,))], STOPS, SamplingOptions())
    scores = np.full(VOCABULARY, bad) if bad < 0 else np.zeros(VOCABULARY)
    scores[4] = bad
    with pytest.raises(DeviceError, match='nonsense'):
        answer.score(scores)


def test_scores_that_rule_out_every_choice_are_an_error():
    answer = ClosedAnswer('ab', [Spelling(0, (1,)), Spelling(1, (2,))], STOPS, SamplingOptions())
    scores = np.full(VOCABULARY, -np.inf)
    scores[4] = 0.0
    with pytest.raises(DeviceError, match='rule out every choice'):
        answer.score(scores)


# --- spelling ------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1, max_size=6).filter(plain_text), min_size=1, max_size=6))
def test_every_text_can_be_spelled_and_read_back(qwen, choices):
    choices = list({plain_text(choice): choice for choice in choices}.values())
    spellings = spell(choices, qwen, qwen.encode)
    assert len({spelling.tokens for spelling in spellings}) == len(spellings)
    assert {spelling.choice for spelling in spellings} == set(range(len(choices)))
    for spelling in spellings:
        said = qwen.decode(spelling.tokens)
        assert plain_text(said) == plain_text(choices[spelling.choice])
        assert said.strip() == said


@given(
    st.lists(
        st.text('aAbB é門🙂', min_size=1, max_size=5).filter(plain_text), min_size=1, max_size=6
    ),
    st.integers(0, 2**32),
)
def test_the_answer_among_any_texts_is_one_of_them_word_for_word(qwen, choices, seed):
    choices = list({plain_text(choice): choice for choice in choices}.values())
    spellings = spell(choices, qwen, qwen.encode)
    answer = ClosedAnswer(choices, spellings, {qwen.token_id('<|im_end|>')}, SamplingOptions())
    rng = np.random.default_rng(seed)
    while not answer.is_done:
        answer.score(rng.standard_normal(qwen.vocab_size))
    assert answer.choice in choices
    assert tuple(answer.tokens) == tuple(qwen.encode(answer.choice.strip()))


def test_what_the_vocabulary_cannot_say_is_refused(words):
    with pytest.raises(BadRequestError, match=r"choices\[1\] cannot be said .*'zzz'"):
        spell(['the box', 'zzz'], words, words.encode)


def test_choices_that_are_the_same_tokens_are_refused(qwen):
    with pytest.raises(BadRequestError, match=r'choices\[0\] and choices\[1\] are the same'):
        spell(['a b', ' a b '], qwen, qwen.encode)


def test_a_choice_is_spelled_with_its_first_letter_in_either_case(qwen):
    spellings = spell(['yes', 'No', '42'], qwen, qwen.encode)
    texts = [(spelling.choice, qwen.decode(spelling.tokens)) for spelling in spellings]
    assert texts == [(0, 'yes'), (1, 'No'), (2, '42'), (0, 'Yes'), (1, 'no')]
