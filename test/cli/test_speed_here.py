"""What the doctor expects of a model here, and each cause for which it is slower, imitated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_vlm_ros.cli.ask import _note_slowness
from edge_vlm_ros.cli.axera_probes import find_virtual_mode
from edge_vlm_ros.cli.findings import State
from edge_vlm_ros.cli.machine import ROOT_VARIABLE, Machine
from edge_vlm_ros.cli.slowness import causes_of_slowness
from edge_vlm_ros.cli.speed_here import Run, chip_here, expect, find_speed, why_slower
from edge_vlm_ros.core import Answer, EngineLimits, FinishReason, Timings
from edge_vlm_ros.models import load_catalogue
from edge_vlm_ros.models.published_speed import PublishedSpeed
from edge_vlm_ros.serving.model_info import ChipModelInfo

ALL = load_catalogue()
# As the driver's guides print it.
BLOCK = (
    '   |-Block: phys(0x181AD1000, 0x1CCCCFFFF), cache =non-cacheable, length={}KB({}MB),'
    '    name="{}"\n'
)
MEMINFO = """\
MemTotal:        {} kB
MemFree:           10000 kB
MemAvailable:    {} kB
SwapTotal:       {} kB
SwapFree:              0 kB
"""
SOC_CLOCK = '/sys/kernel/debug/clk/tpll_clock/clk_rate'
SMALL_SOC_CLOCK = '/sys/kernel/debug/clk/clk_tpll/clk_rate'
POLICY = '/sys/devices/system/cpu/cpufreq/policy0'


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / 'board')


@pytest.fixture
def put(machine):
    """Put files into the board: `put({path: text})`."""

    def write(files):
        for path, text in files.items():
            place = machine.at(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    return write


def blocks(*held):
    return ''.join(BLOCK.format(mb * 1024, mb, name) for mb, name in held)


HEALTHY = {
    '/proc/700/comm': 'vlm_node\n',
    '/proc/ax_proc/mem_cmm_info': blocks((18, 'TDP_DEV'), (1200, 'npu_m_pid700')),
    '/proc/meminfo': MEMINFO.format(4 << 20, 2 << 20, 0),
    SOC_CLOCK: '1000000000\n',
    '/sys/class/thermal/thermal_zone0/temp': '61000\n',
    f'{POLICY}/scaling_max_freq': '2300000\n',
    f'{POLICY}/cpuinfo_max_freq': '2300000\n',
}


def test_a_healthy_board_is_slowed_down_by_nothing(machine, put):
    put(HEALTHY)
    assert causes_of_slowness(machine) == []


@pytest.mark.parametrize(
    ('name', 'files', 'says'),
    [
        (
            'dead memory',
            {
                '/proc/ax_proc/mem_cmm_info': blocks(
                    (18, 'TDP_DEV'), (1000, 'npu_m_pid592'), (200, 'npu_c_pid592'), (7, 'x_pid700')
                )
            },
            '1200 MiB of CMM belong to processes that are no more (592)',
        ),
        (
            'host memory',
            {'/proc/meminfo': MEMINFO.format(2 << 20, 90 << 10, 0)},
            '90 of 2048 MiB of host memory are left',
        ),
        (
            'host memory',
            {'/proc/meminfo': MEMINFO.format(2 << 20, 400 << 10, 900 << 10)},
            '900 MiB are swapped out, of 2048 MiB in all',
        ),
        ('clock', {SOC_CLOCK: '500000000\n'}, 'the chip runs at 500 MHz of 1000'),
        ('clock', {SMALL_SOC_CLOCK: '400000000\n'}, 'the chip runs at 400 MHz of 900'),
        (
            'clock',
            {
                '/proc/bmsophon/card0/tpu_maxclk': '1000 MHz\n',
                '/proc/bmsophon/card0/bmsophon0/tpu_freq': '750 MHz\n',
            },
            'card0 bmsophon0 runs at 750 MHz of 1000',
        ),
        (
            'clock',
            {f'{POLICY}/scaling_max_freq': '1200000\n'},
            'the processor runs at 1200 MHz of 2300',
        ),
        ('heat', {'/sys/class/thermal/thermal_zone1/temp': '104000\n'}, '104 degrees Celsius'),
    ],
)
def test_each_cause_is_found_on_a_board_that_has_it(machine, put, name, files, says):
    put({**HEALTHY, **files})
    (cause,) = causes_of_slowness(machine)
    assert cause.name == name
    assert says in cause.found
    assert cause.remedy


def test_nobody_is_called_dead_on_a_copy_without_processes(machine, put):
    put({'/proc/ax_proc/mem_cmm_info': blocks((1000, 'npu_m_pid592'))})
    assert causes_of_slowness(machine) == []


# --- what is expected ----------------------------------------------------------------------------


def test_a_published_model_is_expected_as_it_was_measured():
    expected = str(expect(ALL.find('ax650', 'internvl3-2b'), 0, []))
    assert expected == (
        'first token after 1.23 s with one image, 11.5 tokens/s (measured on AX650N board)'
    )


def test_a_slow_clock_is_reckoned_in(machine, put):
    put({**HEALTHY, SOC_CLOCK: '500000000'})
    found = expect(ALL.find('bm1684x', 'qwen2-vl-7b'), 0, causes_of_slowness(machine))
    assert (found.tokens_per_s, found.first_token_s) == pytest.approx((9.19 / 2, 6.08 * 2))
    assert '2.00 times slower at the clock here' in found.how


def test_a_slow_processor_does_not_slow_the_chip_down_by_a_known_factor(machine, put):
    put({**HEALTHY, f'{POLICY}/scaling_max_freq': '1200000'})
    found = expect(ALL.find('ax650', 'internvl3-2b'), 0, causes_of_slowness(machine))
    assert found.tokens_per_s == 11.5


def test_of_other_bmodels_the_file_gives_an_estimate():
    entry = replace(ALL.find('bm1684x', 'internvl3-2b'), speed=None)
    found = expect(entry, 2 << 30, [])
    assert 10 < found.tokens_per_s < 30
    assert 'estimated: 2048 MiB of weights are read for each token' in found.how
    assert expect(entry, 0, []) is None


def test_published_estimates_are_of_the_order_of_what_was_measured():
    """InternVL2-4B and 8B in 4 bit on an SE7-32, by the weights that they have at the least."""
    for name, gigabytes in (('internvl2-4b', 2.1), ('internvl2-8b', 4.3)):
        entry = ALL.find('bm1684x', name)
        found = expect(replace(entry, speed=None), int(gigabytes * 1e9), [])
        assert 0.5 < found.tokens_per_s / entry.speed.tokens_per_s < 2


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Put a set of an Axera model where it is looked for."""
    monkeypatch.delenv('EDGE_VLM_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    entry = ALL.find('ax650', 'internvl3-1b')
    folder = tmp_path / 'models' / entry.name
    folder.mkdir(parents=True)
    layers = (entry.files['layers'].path.format(layer=i) for i in range(entry.layers))
    for name in (*layers, 'qwen2_post.axmodel', 'model.embed_tokens.weight.npy', 'a_vit.axmodel'):
        (folder / name).touch()
    for name in ('config.json', 'tokenizer.json'):
        (folder / name).write_text('{}')
    return tmp_path / 'models'


def test_the_doctor_predicts_for_models_on_the_disk_and_names_what_is_in_the_way(
    machine, put, models
):
    put(HEALTHY)
    put({'/dev/ax_sys': '', '/proc/ax_proc/chip_type': 'AX650C_CHIP\n'})
    assert chip_here(machine) == 'ax650'
    (found,) = find_speed(machine, (models,))
    assert (found.name, found.state) == ('internvl3-1b (ax650)', State.OK)
    assert '26.7 tokens/s' in found.found
    put({'/proc/meminfo': MEMINFO.format(2 << 20, 90 << 10, 0)})
    _, cause = find_speed(machine, (models,))
    assert (cause.name, cause.state) == ('host memory', State.WARNING)


def test_a_machine_without_a_chip_gets_no_prediction(machine, models):
    assert list(find_speed(machine, (models,))) == []


@pytest.mark.parametrize(('mode', 'count'), [('', 0), ('disable\n', 0), ('enable\n', 1)])
def test_a_shared_out_npu_is_seen_before_anything_is_loaded(machine, put, mode, count):
    put({'/proc/ax_proc/npu/vnpu': mode})
    found = list(find_virtual_mode(machine))
    assert [finding.state for finding in found] == [State.WARNING] * count


# --- after a run ---------------------------------------------------------------------------------

PUBLISHED = PublishedSpeed(11.5, 1.227, 7.1, 'AX650N board')


@pytest.mark.parametrize(
    ('run', 'says'),
    [
        (Run(11.0, 'in place'), ''),
        (Run(0.0), ''),
        (Run(6.9, 'portable'), 'whole caches are copied and flushed for every token'),
        (Run(6.9, 'portable'), '(7.1 with backend portable)'),
        (Run(1.5, 'portable', is_card=True), 'whole caches cross PCIe for every token'),
        (Run(5.0, 'in place'), 'no cause was found'),
    ],
)
def test_a_slow_run_is_explained_by_the_way_the_chip_was_driven(machine, put, run, says):
    put(HEALTHY)
    told = why_slower(PUBLISHED, run, machine)
    assert says in told
    assert bool(told) is bool(says)


def test_ask_says_why_a_model_of_the_catalogue_was_slow(machine, put, monkeypatch, capsys):
    put({**HEALTHY, SOC_CLOCK: '500000000', '/proc/meminfo': MEMINFO.format(2 << 20, 9, 0)})
    monkeypatch.setenv(ROOT_VARIABLE, str(machine.root))
    limits = EngineLimits(
        context_tokens=512,
        longest_prompt=512,
        prefill_chunk=512,
        max_images=1,
        can_extend_prefix=False,
        samples_on_chip=True,
        has_logits=False,
        vocab_size=10,
        hidden_size=8,
        hidden_dtype='bfloat16',
    )
    info = ChipModelInfo(model='internvl2-4b', chip='bm1684x', limits=limits)
    slow = Timings(answer_tokens=11, decode_s=20.0)
    answer = Answer('r', 'text', FinishReason.STOP, timings=slow)
    assert answer.timings.tokens_per_second == pytest.approx(0.5, rel=0.1)
    _note_slowness(answer, info)
    told = capsys.readouterr().err
    assert 'tokens/s are slower than the 27.1 tokens/s on SE7-32' in told
    assert 'the chip runs at 500 MHz of 1000' in told
    assert '0 of 2048 MiB of host memory are left' in told
    _note_slowness(answer, replace(info, model='/data/mine.bmodel'))
    assert capsys.readouterr().err == ''
