"""The minimum that the Sophgo figures are held against, and how steps are taken apart."""

from dataclasses import replace

import pytest
from support.sophgo.engine_runs import model_files
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.core import SamplingOptions
from edge_vlm_ros.engines.sophgo.heads import LogitsHead, Sampler, SamplerKind, TokenHead
from edge_vlm_ros.engines.sophgo.model_files import contract_of, read_for_chip
from tools.bench.sophgo import clock
from tools.bench.sophgo.cases import CASES, PUBLISHED
from tools.bench.sophgo.least import least_bytes

GREEDY, WARM = SamplingOptions(), SamplingOptions(temperature=0.7)
SAMPLER = Sampler(SamplerKind.SAMPLE, 64, 50)


@pytest.fixture(scope='module')
def contract(tmp_path_factory):
    fixture = FIXTURES['qwen2vl_v2_bf16_bm1684x']
    path = fixture.unpack(tmp_path_factory.mktemp('bmodel'))
    return contract_of(read_for_chip(model_files(fixture, path)))


@pytest.mark.parametrize(
    ('head', 'sampling', 'up', 'down'),
    [
        (TokenHead(), GREEDY, 14, 4),
        (LogitsHead(384, has_greedy=True, sampler=None), GREEDY, 14, 4),
        (LogitsHead(384, has_greedy=False, sampler=None), GREEDY, 18, 1536),
        (LogitsHead(384, has_greedy=True, sampler=None), WARM, 18, 1536),
        (LogitsHead(384, has_greedy=True, sampler=SAMPLER), WARM, 18, 204),
        (LogitsHead(384, has_greedy=True, sampler=SAMPLER), replace(WARM, top_k=7), 18, 32),
        (LogitsHead(384, has_greedy=True, sampler=SAMPLER), replace(WARM, top_k=51), 18, 1536),
    ],
)
def test_three_positions_a_mask_element_and_what_tells_the_token(
    contract, head, sampling, up, down
):
    least = least_bytes(replace(contract, head=head), sampling)
    assert (least.up, least.down) == (up, down)


def test_without_embedding_nets_a_row_goes_up(contract):
    least = least_bytes(replace(contract, head=TokenHead(), embeds_on_chip=False), GREEDY)
    assert least.up == 14 + 2 * contract.decoder.hidden


def test_every_case_has_its_fixture_and_every_published_model_a_timed_case_with_a_sample():
    cases = {case.name: case for case in CASES}
    assert len(cases) == len(CASES)
    assert all(FIXTURES[case.fixture].chip == 'bm1684x' for case in CASES)
    assert {name for name, case in cases.items() if case.launch_s} == {m.case for m in PUBLISHED}
    assert all(cases[model.case].sample for model in PUBLISHED)


def test_a_step_is_taken_apart_into_layers_and_the_rest(monkeypatch):
    watch = clock.Clock()
    moments = iter([10.0, 11.0])
    monkeypatch.setattr(clock.time, 'perf_counter', lambda: next(moments))

    def step():
        watch.calls += [
            ('update_data', 10.1, 10.2),
            ('block_cache_0', 10.25, 10.3),
            ('view', 10.31, 10.35),
            ('block_cache_1', 10.36, 10.5),
            ('asnumpy', 10.7, 10.75),
        ]

    found = watch.time_step(step)
    assert found.host_s == pytest.approx(0.1 + 0.05 + 0.01 + 0.01 + 0.2 + 0.25)
    assert found.view_s == pytest.approx(0.04)
    assert found.layer_s == [(1, pytest.approx(0.02))]
