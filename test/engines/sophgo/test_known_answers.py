"""Every contract against the float reference, on the vendor's runtime and chip emulator."""

import pytest
from support.sophgo import emulator
from support.sophgo.engine_runs import run_scenarios, run_values
from support.sophgo.fixtures import FIXTURES

pytestmark = [pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(420)]

LIMIT_S = 400.0
CLEAR = 0.2
"""A lead of the reference's token that half precision does not turn round."""

ALL = ('text', 'talk', 'images', 'full')
TALK = ('talk',)
ONE_IMAGE = ('text', 'talk', 'full', 'second_image', 'after_image')

# Fixture -> scenarios: all of them for each contract, a talk for variants of the same contract.
RUNS = {
    'internvl3_static_bf16_bm1684x': (*ALL, 'ahead', 'given_up'),
    'internvl3_static_bf16_bm1688': (*ALL, 'by_steps'),
    'internvl3_history_sample_bf16_bm1684x': (*ALL, 'ahead', 'sampled'),
    'internvl3_history_bf16_bm1688': (*ALL, 'ahead', 'given_up'),
    'internvl3_oldhistory_bf16_bm1684x': (*ALL, 'ahead'),
    'internvl3_oldhistory_bf16_bm1688': ALL,
    'internvl3_dynamic_bf16_bm1684x': ALL,
    'internvl3_sample_bf16_bm1684x': ('talk', 'sampled'),
    'internvl3_awq_bm1684x': TALK,
    'internvl35_static_bf16_bm1684x': ('talk', 'images'),
    'internvl35_history_bf16_bm1688': TALK,
    'internvl2_bf16_bm1684x': ALL,
    'internvl2_bf16_bm1688': TALK,
    'internvl2_w4bf16_bm1684x': TALK,
    'internvl2_basic_bf16_bm1684x': TALK,
    'qwen2vl_convert_bf16_bm1684x': (*ALL, 'clip'),
    'qwen2vl_convert_bf16_bm1688': ('talk', 'by_steps'),
    'qwen2vl_dynamic_bf16_bm1684x': ('talk', 'clip'),
    'qwen3vl_static_bf16_bm1684x': ('talk', 'full', 'clip', 'inside'),
    'qwen3vl_dynamic_bf16_bm1684x': ('images', 'inside'),
    'qwen2vl_v2_bf16_bm1684x': (*ALL, 'clip', 'sampled'),
    'qwen2vl_v3_w4bf16_bm1684x': TALK,
    'qwen2vl_v4_f16_bm1684x': TALK,
    'qwen2_5vl_static_bf16_bm1684x': ('talk', 'images', 'full', 'clip'),
    'qwen2_5vl_dynamic_bf16_bm1684x': ('talk', 'clip'),
    'qwen2_5vl_history_bf16_bm1688': ('talk', 'clip'),
    'mllama_2024_bf16_bm1684x': (*ONE_IMAGE, 'sampled'),
    'mllama_2024_w4bf16_bm1684x': TALK,
    'mllama_convert_bf16_bm1684x': (*ONE_IMAGE, 'by_steps'),
}


# The same nets as of another file, for the engine: only the compiler's weights are of 4 bits; or
# a tower and a decoder that other files have each; or the other chip's.
EXHAUSTIVE = {
    'internvl3_oldhistory_bf16_bm1684x',
    'internvl3_static_bf16_bm1688',
    'qwen2vl_v4_f16_bm1684x',
    'qwen2_5vl_dynamic_bf16_bm1684x',
    'qwen3vl_dynamic_bf16_bm1684x',
    'internvl2_w4bf16_bm1684x',
    'internvl35_history_bf16_bm1688',
    'mllama_2024_w4bf16_bm1684x',
    'qwen2_5vl_history_bf16_bm1688',
}


def run_names():
    """Return the fixtures to run, those that prove nothing new marked so."""
    mark = pytest.mark.exhaustive
    return [pytest.param(n, marks=[mark] if n in EXHAUSTIVE else []) for n in RUNS]


REFUSALS = {
    'a token after a full context': 'PromptTooLongError',
    'no room for a piece': 'PromptTooLongError',
    'a prompt of one token too many': 'PromptTooLongError',
    'two images': 'TooManyFramesError',
    'a later image': 'TooManyFramesError',
    'given up': 'CancelledError',
    'no token of it': 'EdgeVlmError',
}


def lowest(name):
    """Return the least cosine: 4 bit weights were not calibrated."""
    return 0.98 if 'w4' in name else 0.999


def check_points(name, points):
    for point in points:
        assert point.cosine >= lowest(name), point
        if point.gap > CLEAR:
            assert point.token == point.expected, point
    assert any(CLEAR < point.gap < 1e9 for point in points), 'no token was compared'


@pytest.mark.parametrize('name', run_names())
def test_engine_and_float_reference_agree_over_whole_conversations(name, bmodel):
    fixture = FIXTURES[name]
    outcome = emulator.call(
        fixture.chip, run_scenarios, name, str(bmodel(name)), RUNS[name], time_limit_s=LIMIT_S
    )
    check_points(name, outcome.points)
    for scenario, (kind, message) in outcome.refusals.items():
        assert kind == REFUSALS[scenario], (scenario, message)
    # Nothing is left on the chip, and a greedy token moves no more than it must.
    assert (outcome.left_bytes, outcome.left_engines) == (0, 0)
    check_step(name, outcome.step)
    check_plans(name, outcome)


def check_step(name, step):
    """4 bytes of position on each axis, 2 of mask, up; 4 of token, down; no copy of the cache."""
    axes = 3 if name.startswith('qwen') else 1
    token = 4  # sent only where it is not the one that the head left on the chip
    assert step['d2s'] == {'calls': 1, 'bytes': 4}
    assert step['s2d']['bytes'] <= 4 * axes + 2 + token
    assert step['d2d']['calls'] == 0
    assert step['allocations']['calls'] == 0
    assert set(step['launches'].values()) == {1}


def check_plans(name, outcome):
    """Static builds go on token by token, those with a history by pieces."""
    if 'second turn' not in outcome.plans:
        return
    one_piece = 'history' in name
    assert (len(outcome.plans['second turn']) == 1) is one_piece
    assert len(outcome.plans['first turn']) == 1
    assert outcome.limits.can_extend_prefix


@pytest.mark.parametrize('name', [name for name, fixture in FIXTURES.items() if fixture.values])
def test_files_of_older_compilers_give_the_tokens_of_their_time(name, bmodel, tmp_path):
    path = tmp_path / 'model.bmodel'
    path.write_bytes(bmodel(name).read_bytes())
    (tmp_path / 'config.json').write_text('{"vocab_size": 384}')
    fixture = FIXTURES[name]
    values = fixture.load_values()
    points = emulator.call(fixture.chip, run_values, name, str(path), values, time_limit_s=LIMIT_S)
    check_points(name, points)
