"""The shipped demo model, asked about scenes it never saw, through the whole pipeline.

The pack in data/ has scenes of seeds and questions of wordings that training never used
(tools/demo_model/pack.py). Answers are compared word for word. Two floors: what the model must
reach at all, and what it reached when it was shipped (SCORES.md beside it, made without this
pipeline and on other scenes), less what chance may take. They catch a worse model and damage to
any part between pixels and text.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from edge_vlm_ros import demo
from edge_vlm_ros.core import CompressedImage, FrameSource, Question, StoredFrame
from edge_vlm_ros.serving import VlmPipeline

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.timeout(900)]

DATA = Path(__file__).parent / 'data'
FLOORS = {
    'describe': 60,
    'describe: objects': 80,
    'count': 85,
    'existence': 85,
    'colour': 85,
    'identity': 85,
    'place': 85,
    'relation': 75,
    'nearest': 75,
    'path': 80,
    'motion': 70,
    'follow-up': 75,
    'absent': 75,
    'outside': 80,
}
"""Percent of right answers, at least, of any model that is shipped."""

SLACK = 2.0
"""Percent: the pack's frames are JPEG and half as large as those of SCORES.md."""

SIGMAS = 2.5

_THING = re.compile(r'a (\w+ \w+ (?:on|in) the \w+)', re.IGNORECASE)


def _jpegs(path):
    """Cut the file into its JPEG images."""
    with np.load(path) as pack:
        start = 0
        for stop in pack['ends']:
            yield CompressedImage('jpeg', pack['bytes'][start:stop].tobytes())
            start = stop


class Examiner:
    """Asks dialogues and counts right answers by kind."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        self.right = defaultdict(float)
        self.asked = defaultdict(int)
        self.sessions = 0

    def ask(self, frames, dialogues):
        for dialogue in dialogues:
            self.sessions += 1
            session = f'{self.sessions}' if len(dialogue['turns']) > 1 else ''
            said = [self._turn(frames, session, i, q) for i, (q, _) in _each(dialogue)]
            if session:
                self.pipeline.reset_session(session)
            self._count(dialogue, said)

    def _turn(self, frames, session, number, words):
        shown = () if number else frames
        answer = self.pipeline.ask(Question(words, frames=shown, session_id=session)).answer(60)
        assert answer.success, answer.message
        return answer.text

    def _count(self, dialogue, said):
        kind, truth = dialogue['kind'], [answer for _, answer in dialogue['turns']]
        if said[:-1] != truth[:-1]:
            return  # a follow-up counts where the first turn was right
        self._add(kind, said[-1] == truth[-1])
        if kind == 'describe' and truth != ['Nothing.']:
            told, wanted = _THING.findall(said[-1]), _THING.findall(truth[-1])
            hits = sum(a.lower() == b.lower() for a, b in zip(told, wanted, strict=False))
            self._add('describe: objects', hits, max(len(told), len(wanted)))

    def _add(self, row, right, asked=1):
        self.right[row] += right
        self.asked[row] += asked

    def percent(self, row):
        return 100 * self.right[row] / self.asked[row]


def _each(dialogue):
    return enumerate(dialogue['turns'])


def _shipped_scores():
    """Read the table of SCORES.md: percent and questions of every kind."""
    text = (Path(demo.__file__).parent / 'model' / 'SCORES.md').read_text(encoding='utf-8')
    rows = (line.strip('|').split('|') for line in text.splitlines() if line.startswith('| '))
    cells = ([cell.strip() for cell in row] for row in rows)
    return {row[0]: (float(row[1]), int(row[4])) for row in cells if row[0] in FLOORS}


def _lowest_by_chance(percent, shipped_count, count):
    """Return what a model of this score still reaches on `count` other questions."""
    share = min(max(percent / 100, 0.05), 0.95)
    deviation = 100 * (share * (1 - share) * (1 / shipped_count + 1 / count)) ** 0.5
    return percent - SLACK - SIGMAS * deviation


def _stored(number, image):
    return StoredFrame(FrameSource('pack'), number, image)


@pytest.fixture(scope='module')
def examiner():
    """Ask everything once; the tests look at one row each."""
    truth = json.loads((DATA / 'questions.json').read_text())
    stills = list(_jpegs(DATA / 'stills.npz'))
    clips = list(_jpegs(DATA / 'clips.npz'))
    count = truth['clip_frames']
    assert len(stills) == len(truth['stills'])
    assert len(clips) == count * len(truth['clips'])
    with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
        examiner = Examiner(pipeline)
        for number, scene in enumerate(truth['stills'], 1):
            examiner.ask((_stored(number, stills[number - 1]),), scene['dialogues'])
        for number, clip in enumerate(truth['clips']):
            numbers = range(number * count, (number + 1) * count)
            frames = tuple(_stored(10**6 + i, clips[i]) for i in numbers)
            examiner.ask(frames, clip['dialogues'])
    return examiner


def test_the_pack_asks_enough_of_every_kind(examiner):
    assert set(examiner.asked) == set(FLOORS)
    assert all(examiner.asked[row] >= (50 if row == 'motion' else 100) for row in FLOORS)


@pytest.mark.parametrize('row', FLOORS)
def test_the_model_is_right_often_enough(examiner, row):
    percent = examiner.percent(row)
    assert percent >= FLOORS[row], f'{row}: {percent:.1f} of {examiner.asked[row]} are right'


@pytest.mark.parametrize('row', FLOORS)
def test_the_pipeline_reaches_the_score_that_was_shipped(examiner, row):
    shipped, shipped_count = _shipped_scores()[row]
    floor = _lowest_by_chance(shipped, shipped_count, examiner.asked[row])
    percent = examiner.percent(row)
    assert percent >= floor, f'{row}: {percent:.1f}, shipped with {shipped}, floor {floor:.1f}'
