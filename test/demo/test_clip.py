"""The demo model about the shipped clip, whenever the demo may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_vlm_ros import demo
from edge_vlm_ros.core import FrameSource, Question, RawImage, StoredFrame
from edge_vlm_ros.demo.questions import QUERIES
from edge_vlm_ros.demo.show import frames_at
from edge_vlm_ros.demo.truth import ClipTruth, is_right
from edge_vlm_ros.serving import VlmPipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLIPS = sorted((Path(demo.__file__).parent / 'clips').glob('*.mp4'))
STEP_S = 0.5


@pytest.fixture(scope='module')
def pipeline():
    with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
        yield pipeline


def _stored(time_s, pixels):
    height, width, _ = pixels.shape
    raw = RawImage('rgb8', width, height, 3 * width, pixels.reshape(-1).data)
    return StoredFrame(FrameSource('camera'), round(time_s * 1e9), raw)


def _wrong(pipeline, clip, query):
    """Ask at every half second at which there is a true answer; return what was not right."""
    truth = ClipTruth.load(clip.with_suffix('.json'))
    wrong, asked = [], 0
    for step in range(int(truth.length_s / STEP_S)):
        stop_s = step * STEP_S
        true_answer = query.truth_at(truth, stop_s)
        if true_answer is None:
            continue
        spacing_s = query.seconds / max(query.frames - 1, 1)
        times_s = [stop_s - query.seconds + spacing_s * n for n in range(query.frames)]
        pixels = frames_at(clip, times_s)
        frames = tuple(_stored(t, p) for t, p in zip(times_s, pixels, strict=True))
        said = pipeline.ask(Question(query.words, frames=frames)).answer(60).text
        asked += 1
        if not is_right(said, true_answer):
            wrong.append(f'{stop_s} s: {said!r}, not {true_answer!r}')
    assert asked > 0 or query.topic == 'colour'
    return wrong


@pytest.mark.parametrize('query', QUERIES, ids=lambda query: query.words)
@pytest.mark.parametrize('clip', CLIPS, ids=lambda clip: clip.stem)
def test_whenever_the_demo_asks_the_answer_is_right(pipeline, clip, query):
    assert _wrong(pipeline, clip, query) == []
