"""`edge-vlm web`: the page over files and the demo model, without ROS."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import zipfile
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession
from support.page_site import Visitor, run

from edge_vlm_ros.cli.main import main
from edge_vlm_ros.cli.parser import parse
from edge_vlm_ros.core.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / 'edge_vlm_ros' / 'demo' / 'clips' / 'box_cone_and_rolling_ball.mp4'
COMMAND = [sys.executable, '-m', 'edge_vlm_ros.cli.main', 'web', '--port', '0']


@asynccontextmanager
async def visit(process):
    process.wait_for_output('?token=')
    url, token = re.search(r'the page is at (\S+)\?token=(\S+)', process.output()).groups()
    async with ClientSession() as session:
        yield Visitor(url, token, session)


def all_have_come(feeds):
    return all(feed['silence_s'] is not None for feed in feeds)


@pytest.fixture
def still(tmp_path):
    path = tmp_path / 'grey.png'
    cv2.imwrite(str(path), np.full((36, 64, 3), 90, np.uint8))
    return path


def test_files_are_cameras_that_are_asked_about_and_an_answer_is_replayed(
    spawn, still, tmp_path, capsys
):
    process = spawn([*COMMAND, '--video', CLIP, '--image', still, still], cwd=ROOT)

    async def talk():
        async with visit(process) as served, served.page() as page:
            await page.until('state', lambda state: state['text'] == 'ready')
            async with served.page() as other:
                facts = await other.until('facts', bool)
                assert [c['name'] for c in facts['cameras']] == [CLIP.stem, 'grey', 'grey-2']
                assert {p['name']: p['question'] for p in facts['presets']} == PRESETS
                await page.say(kind='look', cameras=[CLIP.stem, 'grey'])
                await page.until(
                    'feeds', lambda m: len(m['feeds']) == 2 and all_have_come(m['feeds'])
                )
                await page.ask(question='What do you see?', cameras=[CLIP.stem])
                answer = await page.hear('answer')
                assert 'ball' in answer['answer']['text']
                assert answer['answer']['model'] == 'demo'
                assert answer['pictures'] == [{'kept': True, 'offset_s': 0.0, 'is_whole': True}]
                while not (heard := await other.hear('overheard'))['done']:
                    pass
                assert heard['question'] == 'What do you see?'
                await page.ask('case', question='Is there a red box?', choices=['yes', 'no'])
                number = (await page.hear('answer'))['number']
                async with served.get(f'case/{number}.zip') as response:
                    zipfile.ZipFile(io.BytesIO(await response.read())).extractall(tmp_path)
                await page.ask('q2', cameras=['grey', CLIP.stem], last_seconds=2)
                pictures = (await page.hear('answer'))['pictures']
                assert len(pictures) >= 2
                assert all(picture['offset_s'] == 0 for picture in pictures)
                await page.ask('q3', cameras=['grey-2'])
                failed = (await page.hear('answer'))['answer']
                assert failed['error_code_name'] == 'NO_FRAME', 'nobody looks at it'

    run(talk())
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert 'Traceback' not in process.output()
    case = [str(tmp_path / 'frames'), '--questions', str(tmp_path / 'questions.json')]
    assert main(['replay', *case, '--json']) == 0
    questions = json.loads(capsys.readouterr().out)['questions']
    assert (questions['asked'], questions['right']) == (1, 1)


def test_a_signal_ends_it_also_while_the_model_loads(spawn, still, tmp_path):
    script = tmp_path / 'slow.yaml'
    script.write_text('latency: {load_s: 600}')
    words = ['--image', still, '--chip', 'scripted', '--model', script]
    process = spawn([*COMMAND, *words], cwd=ROOT)

    async def talk():
        async with visit(process) as served, served.page() as page:
            await page.ask()
            answer = (await page.hear('answer'))['answer']
            assert answer['error_code_name'] == 'NOT_READY'
            assert 'loading' in answer['message']

    run(talk())
    process.signal(signal.SIGTERM)
    assert process.wait() == 143
    assert 'Traceback' not in process.output()


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        (['--image', '/nowhere.png'], 2, 'no such file or folder: /nowhere.png'),
        (['--image', '{still}', '--chip', 'toaster'], 2, 'toaster'),
        (['--image', '{still}', '--token-file', '{still}'], 2, 'cannot read the token'),
        (['--image', '{still}', '--model', '/nowhere'], 3, '/nowhere'),
        (['--image', '{still}', '--host', '203.0.113.7'], 2, 'cannot listen at 203.0.113.7'),
    ],
)
def test_what_cannot_be_served_ends_with_one_line(spawn, still, words, code, said):
    process = spawn([*COMMAND, *(word.format(still=still) for word in words)], cwd=ROOT)
    assert process.wait() == code
    (line,) = [x for x in process.output().splitlines() if x.startswith('edge-vlm: ')]
    assert said in line
    assert 'Traceback' not in process.output()


@pytest.mark.parametrize(
    'words', [[], ['--camera', 'front'], ['--camera', '0', '--port', '65536'], ['--camera', '-1']]
)
def test_bad_usage_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(['web', *words])
    assert ended.value.code == 2
    assert 'error:' in capsys.readouterr().err
