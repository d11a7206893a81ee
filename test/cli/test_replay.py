"""`edge-vlm replay` as a user runs it, on the clip and with the labels that ship."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_finds_its_events_and_is_its_own_baseline(edge_vlm, tmp_path):
    words = ('replay', 'demo', '--look-s', 0.05)
    done = edge_vlm(*words, '--to', tmp_path / 'out', '--json')
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    watch = report['watches']['blocked']
    assert (watch['labelled'], watch['hits'], watch['misses']) == (2, 2, 0)
    assert (watch['false_alarms'], watch['repeated']) == (0, 0)
    assert 0 < watch['delay_s'] < 2.5
    assert watch['unchanged'] > watch['looks']
    out = tmp_path / 'out'
    assert json.loads((out / 'report.json').read_text()) == report
    lines = [json.loads(line) for line in (out / 'replay.jsonl').read_text().splitlines()]
    looks = [line for line in lines if line['kind'] == 'look']
    assert all(0.5 <= look['probability'] <= 1 for look in looks)
    assert (out / 'replay.png').read_bytes().startswith(b'\x89PNG')
    better = json.loads(json.dumps(report))
    better['watches']['blocked']['longest_delay_s'] = -1.0
    (tmp_path / 'better.json').write_text(json.dumps(better))
    done = edge_vlm(*words, '--baseline', tmp_path / 'better.json')
    assert done.returncode == 1
    assert '2 of 2 labelled events' in done.stdout
    assert 'worse than' in done.stderr
    done = edge_vlm(*words, '--baseline', out / 'report.json')
    assert (done.returncode, done.stderr) == (0, '')


def test_a_folder_of_images_is_asked_what_a_file_says(edge_vlm, script, grey_image, tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for number, brightness in enumerate((60, 60, 200, 200)):
        grey_image(brightness).rename(folder / f'{number}.png')
    asked = tmp_path / 'asked.yaml'
    asked.write_text(
        'questions:\n'
        '  - {at_s: 0.2, question: "Yes or no?", expect: "yes"}\n'
        '  - {at_s: 1.0, question: "Yes or no, please?", choices: ["yes", "no"], expect: "no"}\n'
    )
    done = edge_vlm(
        'replay', folder, '--chip', 'scripted', '--model', script, '--questions', asked, '--json'
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['questions'] == {
        'asked': 2, 'right': 1, 'wrong': 1, 'failed': 0, 'after_the_end': 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('nowhere.mp4', '--watch', 'w: Eh?'), 'no such file or folder'),
        (('LICENSE', '--watch', 'w: Eh?'), 'not a video'),
        (('nowhere.mp4',), 'nothing to ask'),
        (('demo', '--watch', 'w: Eh?', '--watch', 'w: Oh?'), 'two watches are called w'),
        (('demo', '--labels', 'LICENSE'), 'LICENSE'),
    ],
)
def test_what_cannot_be_played_is_said_and_ends_with_2(edge_vlm, words, said):
    done = edge_vlm('replay', *words)
    assert done.returncode == 2
    assert said in done.stderr
