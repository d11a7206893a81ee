"""The soak in its short form, and what it judges by. `make soak` is the long one."""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace

import pytest

from edge_vlm_ros.core import ErrorCode

pytestmark = pytest.mark.ros
REQUESTS = 150


@pytest.mark.slow
def test_mixed_requests_with_random_faults_end_once_and_rightly_and_leave_nothing(spawn, tmp_path):
    report = tmp_path / 'soak.json'
    words = ['--requests', REQUESTS, '--seconds', 240, '--output', report]
    soak = spawn([sys.executable, '-m', 'tools.soak', *words], {'PYTHONPATH': ':'.join(sys.path)})
    assert soak.wait(280) == 0, soak.output()
    found = json.loads(report.read_text())
    assert found['wrongs'] == []
    assert found['requests'] >= REQUESTS
    assert found['deaths'] >= 2
    assert found['answers_compared_with_frames'] > REQUESTS / 5
    assert len(found['kinds']) > 10


def answer(**fields):
    made = {'request_id': 'r0', 'text': '', 'error_code': 0, 'message': '', 'frames': []}
    return SimpleNamespace(**{**made, **fields})


def frame(camera, stamp_ns):
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(camera=camera, header=SimpleNamespace(stamp=stamp))


def told(camera, stamp_ns):
    from tools.soak.script import brightness

    return f'{brightness(camera, stamp_ns) / 255:.2f}'


def wrongs(got, *, replies=1, died=False, **heard):
    from tools.soak.ledger import Asked, Ledger
    from tools.soak.requests import Draw
    from tools.soak.robot import Heard

    asked = Asked(Draw(random.Random(1)).of_kind('still'), 'r0', 0, got, replies, died)
    ledger = Ledger([asked], dark=0.0, bright=1.0)
    text = got.text if got else ''
    chunks = {'deltas': [text], 'sequences': [0], 'finals': 1, **heard}
    return list(ledger.wrongs({'r0': Heard(**chunks)}))


def test_a_right_answer_is_right():
    good = answer(text=f'means: {told("front", 5)}', frames=[frame('front', 5)])
    assert wrongs(good) == []


@pytest.mark.parametrize(
    ('got', 'more', 'words'),
    [
        (None, {'replies': 0}, '0 replies'),
        (answer(), {'replies': 2}, '2 replies'),
        (answer(), {'finals': 2}, '2 final chunks'),
        (answer(), {'sequences': [0, 2]}, 'chunks [0, 2]'),
        (answer(request_id='r1'), {}, "the reply is of 'r1'"),
        (answer(text='a'), {'deltas': ['b']}, 'is not that of the chunks'),
        (answer(error_code=ErrorCode.ENGINE_DIED), {}, 'ended with ENGINE_DIED'),
        (answer(text='means: 0.00', frames=[frame('front', 5)]), {}, 'its frames are'),
        (answer(text='means: ', frames=[frame('front', 5)]), {}, 'its frames are'),
    ],
)
def test_what_is_wrong_is_found(got, more, words):
    found = wrongs(got, **more)
    assert any(words in wrong for wrong in found), found


def test_a_death_is_an_excuse_and_is_counted():
    assert wrongs(answer(error_code=ErrorCode.ENGINE_DIED), died=True) == []


def test_the_slope_is_that_of_one_process_and_one_outlier_changes_nothing():
    from tools.soak.usage import Sample, slope

    grows = [Sample(1, n, 100 + n / 100) for n in range(200)]
    assert slope(grows) == pytest.approx(10.0)
    assert slope([*grows, Sample(1, 200, 900.0)]) == pytest.approx(10.0)
    flat = [Sample(pid, 100 * pid + n, 50.0 + 100 * pid) for pid in range(4) for n in range(100)]
    assert slope(flat) == 0.0
