"""The one image that a model with cross-attention attends to, and how it is forgotten."""

import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import Bench

NAME = 'mllama_2024_bf16_bm1684x'
CROSS_LAYER = 'block_cache_1'

pytestmark = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(420)]


def launched(name, path):
    """Return which nets a token runs: after an image, after a part of it cut off, before it."""
    from sophon import standin

    bench = Bench(name, path)
    engine, talk = bench.engine, bench._one_image()
    bench._prefill(talk, 0, 'image')
    found = []
    first = talk.spans[0].start
    for kept in (len(talk.ids), first + 1, first):
        engine.kv.truncate(kept)
        standin.reset()
        engine.decode(7, kept)
        found.append(sorted(standin.counters().launches))
    # The same image again: its features are still on the chip.
    engine.kv.truncate(0)
    standin.reset()
    bench._prefill(talk, 0, 'again')
    sent = standin.counters().s2d.bytes
    states = bench._features[0].states.nbytes
    engine.close()
    return found, sent, states


def test_an_image_is_forgotten_with_its_token_and_sent_once(bmodel):
    found, sent, states = emulator.call(
        'bm1684x', launched, NAME, str(bmodel(NAME)), time_limit_s=400.0
    )
    behind, cut, before = found
    assert CROSS_LAYER in behind
    assert CROSS_LAYER in cut
    assert CROSS_LAYER not in before
    assert 'block_cache_0' in before
    assert sent < states
