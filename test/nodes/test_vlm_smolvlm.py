"""The vlm node with a SmolVLM on the CPU, as `chip:=cpu model:=FOLDER` starts it."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope='module')
def client(robot, tmp_path_factory):
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_smolvlm.make import make_tiny_smolvlm

    folder = make_tiny_smolvlm(tmp_path_factory.mktemp('smolvlm'))
    robot.camera()
    robot.node = robot.vlm(
        {
            'chip': 'cpu',
            'model': str(folder),
            'camera_names': "['front']",
            'cameras.front.topic': 'image_raw',
            'engine_options': "['threads=1','max_tiles=4']",
            'max_age_s': 5.0,
        }
    )
    robot.client.until_state('ready')
    robot.client.until_frames('front')
    return robot.client


def test_a_still_is_cut_and_a_clip_is_shown_frame_by_frame(client):
    still = client.ask('Is it red?', yes_no=True)
    assert (still.error_code, still.chip) == (still.ERROR_NONE, 'cpu')
    assert still.text in {'yes', 'no'}
    assert still.stats.vision_tokens == 5 * 4
    client.until(
        lambda: len(client.ask('Is it red?', yes_no=True, last_seconds=3.0).frames) > 1,
        what='a clip of several frames',
    )
    clip = client.ask('Is it red?', yes_no=True, last_seconds=3.0, max_frames=3)
    assert clip.stats.vision_tokens == 4 * len(clip.frames)


def test_a_conversation_goes_on(client):
    first = client.ask('Is it red?', yes_no=True, session_id='walk')
    later = client.ask('Is it blue?', yes_no=True, session_id='walk')
    assert later.error_code == later.ERROR_NONE
    assert later.stats.prompt_tokens > first.stats.prompt_tokens
    assert later.stats.cached_prompt_tokens >= first.stats.prompt_tokens - 1
