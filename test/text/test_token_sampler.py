"""Choosing tokens: equal to the plain way, reproducible, and never from nonsense."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_vlm_ros.core import DeviceError, SamplingOptions
from edge_vlm_ros.text import TokenSampler

LOGITS = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, -30.0, float('-inf')]), st.floats(-40, 40, width=32)
    ),
).filter(lambda logits: np.isfinite(logits).any())


def reference(logits, options, draw):
    """The plain way in float64: sort, cut, running sum over ids. None where rounding decides."""
    if options.temperature == 0:
        return int(np.flatnonzero(logits == logits.max())[0])
    scaled = logits.astype(np.float64) / options.temperature
    weights = np.exp(scaled - scaled.max())
    order = sorted(range(logits.size), key=lambda i: (-float(logits[i]), i))
    if options.top_k:
        order = order[: options.top_k]
    sums = np.cumsum(weights[order]) / weights[order].sum()
    if options.top_p < 1:
        if np.abs(sums - options.top_p).min() < 1e-5:
            return None
        order = order[: int(np.flatnonzero(sums >= options.top_p)[0]) + 1]
    kept = np.zeros_like(weights)
    kept[order] = weights[order]
    running = np.cumsum(kept) / kept.sum()
    if np.abs(running - draw).min() < 1e-5:
        return None
    return int(np.flatnonzero(running > draw)[0])


@given(
    logits=LOGITS,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 10)),
    top_k=st.integers(0, 70),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    seed=st.integers(0, 2**32),
)
def test_choice_equals_the_plain_float64_reference(logits, temperature, top_k, top_p, seed):
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    expected = reference(logits, options, np.random.default_rng(seed).random())
    assume(expected is not None)
    assert TokenSampler(options).choose(logits) == expected


def shaped(rng, size, shape):
    """Make logits as they come: with ties, with tokens ruled out, all alike, or one far ahead."""
    logits = rng.standard_normal(size) * 2.5
    if shape == 'ties':
        logits = np.round(logits)
    elif shape == 'ruled out':
        logits[rng.random(size) < 0.9] = -np.inf
        logits[rng.integers(size)] = 1.0
    elif shape == 'far below':
        logits[rng.random(size) < 0.5] = -3e38
        logits[rng.integers(size)] = 1.0
    elif shape == 'alike':
        logits[:] = 4.0
    elif shape == 'ahead':
        logits[rng.integers(size, size=3)] += 20
    return logits.astype(np.float32)


@given(
    size=st.integers(61, 1500),
    shape=st.sampled_from(['plain', 'ties', 'ruled out', 'far below', 'alike', 'ahead']),
    options=st.builds(
        SamplingOptions,
        temperature=st.floats(0.05, 10),
        top_k=st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 1600)),
        top_p=st.one_of(st.just(1.0), st.floats(0.01, 1)),
        seed=st.integers(0, 2**32),
    ),
)
def test_more_logits_than_a_column_has_equal_the_reference_too(size, shape, options):
    logits = shaped(np.random.default_rng(options.seed), size, shape)
    expected = reference(logits, options, np.random.default_rng(options.seed).random())
    assume(expected is not None)
    assert TokenSampler(options).choose(logits) == expected


@pytest.mark.parametrize('scale', [0.3, 3.0, 30.0], ids=['flat', 'usual', 'sharp'])
@pytest.mark.parametrize(
    ('temperature', 'top_k', 'top_p'),
    [
        (1.0, 0, 1.0),
        (0.7, 20, 0.8),
        (1.0, 50, 1.0),
        (1.0, 0, 0.9),
        (10.0, 0, 0.99),
        (1.0, 5000, 0.5),
    ],
)
def test_a_whole_vocabulary_equals_the_reference_too(scale, temperature, top_k, top_p):
    rng = np.random.default_rng(5)
    logits = (rng.standard_normal(151_674) * scale).astype(np.float32)
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, seed=11)
    sampler, draws = TokenSampler(options), np.random.default_rng(11)
    compared = 0
    for _ in range(8):
        chosen, draw = sampler.choose(logits), draws.random()
        scaled = logits.astype(np.float64) / temperature
        order = np.lexsort((np.arange(logits.size), -logits))[: top_k or None]
        weights = np.exp(scaled - scaled.max())
        sums = np.cumsum(weights[order]) / weights[order].sum()
        fewest = int(np.searchsorted(sums, top_p)) + 1 if top_p < 1 else order.size
        kept = np.sort(order[:fewest])
        running = np.cumsum(weights[kept]) / weights[kept].sum()
        place = int(np.searchsorted(running, draw, side='right'))
        near = {int(kept[p]) for p in range(max(place - 1, 0), min(place + 2, kept.size))}
        assert chosen in near
        compared += chosen == kept[min(place, kept.size - 1)]
    assert compared >= 7  # float32 rounding may move one draw to the neighbour, not more


def test_frequencies_are_the_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = TokenSampler(SamplingOptions(temperature=1.0, seed=3))
    counts = np.bincount([sampler.choose(logits) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(counts / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = np.log(np.array([0.15, 0.5, 0.05, 0.3], np.float32))
    sampler = TokenSampler(SamplingOptions(temperature=1.0, top_p=0.75, seed=3))
    assert {sampler.choose(logits) for _ in range(200)} == {1, 3}


def test_of_equal_logits_top_k_keeps_the_lowest_ids():
    sampler = TokenSampler(SamplingOptions(temperature=1.0, top_k=3, seed=3))
    logits = np.array([0, 2, 1, 1, 1, 1], np.float32)
    assert {sampler.choose(logits) for _ in range(200)} == {1, 2, 3}


def test_logits_that_scaling_rounds_to_one_keep_their_order():
    logits = np.array([-7e-10, 0, 0, 1, 0], np.float32)  # the first is below the second
    for options in ({'top_k': 2}, {'top_p': 0.5}, {'top_k': 4, 'top_p': 0.6}):
        sampler = TokenSampler(SamplingOptions(temperature=1.0, seed=3, **options))
        assert {sampler.choose(logits) for _ in range(100)} == {1, 3}, options


def test_greedy_takes_the_lowest_of_equal_ids():
    assert TokenSampler(SamplingOptions()).choose(np.array([1, 5, 5, 2], np.float32)) == 1


def test_a_temperature_near_zero_is_greedy():
    sampler = TokenSampler(SamplingOptions(temperature=1e-30, top_p=0.9))
    assert sampler.choose(np.array([1, 5, 4.999], np.float32)) == 1


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    logits = np.random.default_rng(0).standard_normal(500).astype(np.float32)

    def tokens(seed):
        sampler = TokenSampler(SamplingOptions(temperature=1.0, seed=seed))
        return [sampler.choose(logits) for _ in range(20)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)
    assert tokens(-1) == tokens(-1)


def test_the_logits_are_left_as_they_were():
    logits = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    before = logits.copy()
    TokenSampler(SamplingOptions(temperature=0.7, top_k=20, top_p=0.8)).choose(logits)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_logits_of_any_float_type_serve(dtype):
    logits = np.array([0, 1, 9, 1], dtype)
    assert TokenSampler(SamplingOptions(temperature=0.1, top_k=2)).choose(logits) == 2


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_nonsense_among_the_logits_is_a_device_error(bad, temperature):
    logits = np.array([1, bad, 2], np.float32)
    with pytest.raises(DeviceError, match=f'{bad}, at token 1'):
        TokenSampler(SamplingOptions(temperature=temperature)).choose(logits)


def test_nothing_but_minus_infinity_is_a_device_error():
    with pytest.raises(DeviceError, match='-inf'):
        TokenSampler(SamplingOptions()).choose(np.full(5, -np.inf, np.float32))
