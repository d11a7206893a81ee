"""The vlm node on an emulated Sophgo chip: the vendor's runtime under a stand-in for sail."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from support.sophgo import emulator
from support.sophgo.fixtures import FIXTURES

DEMO = FIXTURES['demo_bf16_bm1684x']
pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.emulator,
    pytest.mark.timeout(400),
]
SLOW_S = 240.0  # an emulated launch takes up to a second, and a question needs dozens


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Lay the demo model out as a deployer would: the bmodel, its texts in tokenizer/."""
    made = tmp_path_factory.mktemp('demo')
    DEMO.unpack(made)
    texts = made / 'tokenizer'
    texts.mkdir()
    for path in DEMO.config_folder().glob('*.json'):
        shutil.copy(path, texts)
    return made


@pytest.fixture(scope='module')
def chip(tmp_path_factory):
    return emulator.variables('bm1684x', tmp_path_factory.mktemp('log') / 'emulator.log')


def red_box(size=64):
    from sensor_msgs.msg import Image

    image = Image(encoding='rgb8', width=size, height=size, step=3 * size)
    image.data.frombytes(bytes([200, 30, 30]) * size * size)
    return image


def test_the_node_answers_as_on_the_cpu_and_lives_through_refusals(
    robot, other_robot, folder, chip
):
    robot.vlm({'chip': 'bm1684x', 'model': folder, 'timeout_s': SLOW_S}, env=chip)
    other_robot.vlm({'chip': 'cpu', 'model': 'demo'})
    robot.client.until_state('ready', SLOW_S)
    other_robot.client.until_state('ready', 90)

    too_long = robot.client.ask('why ' * 600, images=[red_box()])
    assert too_long.error_code == too_long.ERROR_PROMPT_TOO_LONG
    assert '256' in too_long.message

    answers = [
        asked.ask('Is there a red box?', within_s=SLOW_S, images=[red_box()])
        for asked in (robot.client, other_robot.client)
    ]
    assert [answer.error_code for answer in answers] == [0, 0], answers[0].message
    assert answers[0].text == answers[1].text
    assert answers[0].text
    assert answers[0].chip == 'bm1684x'

    # Its head gives tokens and no scores: the choice is the one that the text names.
    closed = robot.client.ask(
        'Is there a red box?', within_s=SLOW_S, images=[red_box()], yes_no=True
    )
    assert closed.error_code == 0, closed.message
    assert closed.text == answers[0].text
    assert math.isnan(closed.choice_probability)
    refused = robot.client.ask('Is there a red box?', images=[red_box()], repetition_penalty=1.1)
    assert refused.error_code == refused.ERROR_UNSUPPORTED_OPTION
    assert 'repetition_penalty cannot be set; max_tokens, stop and choices can' in refused.message


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        ({'chip': 'bm1688'}, 'compiled for BM1684X'),
        ({'chip': 'bm1684x', 'device_ids': '[7]'}, '7'),
    ],
)
def test_a_wrong_chip_or_device_fails_the_start_and_is_named(
    other_robot, folder, chip, wanted, message
):
    node = other_robot.vlm({**wanted, 'model': folder}, env=chip)
    assert node.wait(90) == 1
    assert message in node.output()
    assert 'Traceback' not in node.output()


def test_a_truncated_file_fails_the_start_with_its_name(other_robot, folder, chip, tmp_path):
    cut = tmp_path / 'cut.bmodel'
    cut.write_bytes(next(folder.glob('*.bmodel')).read_bytes()[:100_000])
    shutil.copytree(folder / 'tokenizer', tmp_path / 'tokenizer')
    node = other_robot.vlm({'chip': 'bm1684x', 'model': cut}, env=chip)
    assert node.wait(90) == 1
    assert 'cut.bmodel' in node.output()
    assert 'truncated' in node.output()
    assert 'Traceback' not in node.output()


def test_a_model_without_its_texts_fails_the_start_and_says_what_is_missing(
    other_robot, folder, chip, tmp_path
):
    alone = shutil.copy(next(folder.glob('*.bmodel')), tmp_path)
    node = other_robot.vlm({'chip': 'bm1684x', 'model': alone}, env=chip)
    assert node.wait(90) == 1
    assert 'tokenizer.json' in node.output()


def test_without_sophon_sail_the_start_fails_and_says_what_to_install(other_robot, folder):
    node = other_robot.vlm({'chip': 'bm1684x', 'model': folder})
    assert node.wait(90) == 1
    assert 'sophon' in node.output()
    assert 'Traceback' not in node.output()


def test_the_texts_of_another_model_are_refused(other_robot, folder, chip, tmp_path):
    path = shutil.copy(next(folder.glob('*.bmodel')), tmp_path)
    shutil.copytree(folder / 'tokenizer', tmp_path / 'tokenizer')
    config = tmp_path / 'tokenizer' / 'config.json'
    told = json.loads(config.read_text())
    told['llm_config']['num_hidden_layers'] = 28
    config.write_text(json.dumps(told))
    node = other_robot.vlm({'chip': 'bm1684x', 'model': path}, env=chip)
    assert node.wait(90) == 1
    assert 'num_hidden_layers' in node.output()
