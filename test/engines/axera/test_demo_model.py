"""The demo model laid out as axmodels answers fixed scenes as the CPU engine does."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge_vlm_ros import demo
from edge_vlm_ros.core import CompressedImage, FrameSource, Question, RawImage, StoredFrame
from edge_vlm_ros.serving import ModelSpec, VlmPipeline

pytestmark = pytest.mark.axera

CLIPS = Path(demo.__file__).parent / 'clips'
SCENES = Path(__file__).parents[2] / 'demo' / 'data'

STILL_QUESTIONS = (
    'Describe what you see.',
    'How many objects are there?',
    'Is there a red box?',
    'What color is the ball?',
)


def stored(image, number):
    return StoredFrame(FrameSource('front', '/image', 'optical'), number + 1, image)


@pytest.fixture(scope='module')
def clip_frames():
    """Twelve frames of the shipped clip, one a second."""
    cv2 = pytest.importorskip('cv2')
    film = cv2.VideoCapture(str(CLIPS / 'box_cone_and_rolling_ball.mp4'))
    frames = []
    while len(frames) < 12:
        is_read, pixels = film.read()
        assert is_read
        if int(film.get(cv2.CAP_PROP_POS_FRAMES)) % 15 == 1:
            height, width = pixels.shape[:2]
            image = RawImage('bgr8', width, height, 3 * width, pixels.tobytes())
            frames.append(stored(image, len(frames)))
    film.release()
    return tuple(frames)


@pytest.fixture(scope='module')
def scenes():
    """Fixed scenes that the model was not trained on: stills, clips of eight frames, questions."""
    questions = json.loads((SCENES / 'questions.json').read_text(encoding='utf-8'))
    found = []
    for kind, length in (('stills', 1), ('clips', 8)):
        with np.load(SCENES / f'{kind}.npz') as pack:
            ends, raw = pack['ends'], pack['bytes']
        images = [raw[a:b].tobytes() for a, b in zip([0, *ends], ends, strict=False)]
        for i, scene in enumerate(questions[kind]):
            shown = images[i * length : (i + 1) * length]
            frames = [stored(CompressedImage('jpeg', data), n) for n, data in enumerate(shown)]
            found.append((kind, tuple(frames), scene['dialogues']))
    return found


@pytest.fixture(scope='module')
def on_cpu():
    with VlmPipeline.open(ModelSpec('cpu', '', options={'threads': 1})) as pipeline:
        yield pipeline


@pytest.fixture
def on_chip(backend, write_set, on_cpu):
    on_cpu.reset_session()  # it stays open from test to test
    spec = ModelSpec('ax650', str(write_set('demo')), options={'backend': backend})
    with VlmPipeline.open(spec) as pipeline:
        yield pipeline


def ask(pipeline, words, frames=(), session=''):
    answer = pipeline.ask(Question(words, frames=frames, session_id=session)).answer(60)
    assert answer.success, answer.message
    return answer.text


def both(pipelines, words, frames=(), session=''):
    return [ask(pipeline, words, frames, session) for pipeline in pipelines]


def test_stills_of_the_shipped_clip(on_chip, on_cpu, clip_frames):
    for frame in clip_frames[::6]:
        for words in STILL_QUESTIONS:
            found, expected = both((on_chip, on_cpu), words, (frame,))
            assert found == expected
            assert found


def test_clips_of_two_to_eight_frames(on_chip, on_cpu, clip_frames):
    for count in (2, 4, 8):
        found, expected = both((on_chip, on_cpu), 'What is moving?', clip_frames[-count:])
        assert found == expected


def test_words_alone(on_chip, on_cpu):
    found, expected = both((on_chip, on_cpu), 'Who are you?')
    assert found == expected
    assert found


def test_a_second_and_a_third_turn(on_chip, on_cpu, clip_frames, backend):
    pipelines = (on_chip, on_cpu)
    turns = [
        ('Describe what you see.', clip_frames[:1]),
        ('What color is the ball?', ()),
        ('Is there a cone?', clip_frames[5:6]),
    ]
    for words, frames in turns:
        found, expected = both(pipelines, words, frames, session=f'talk {backend}')
        assert found == expected, words


def test_scenes_it_never_saw(on_chip, on_cpu, scenes):
    """bfloat16 turns an answer only where the model itself is in doubt: none of these."""
    stills = [scene for scene in scenes if scene[0] == 'stills'][:3]
    clips = [scene for scene in scenes if scene[0] == 'clips'][:1]
    asked = 0
    for number, (_, frames, dialogues) in enumerate(stills + clips):
        for turn, dialogue in enumerate(dialogues[:4]):
            session = f'{number}-{turn}' if len(dialogue['turns']) > 1 else ''
            for i, (words, _) in enumerate(dialogue['turns']):
                shown = frames if i == 0 else ()
                found, expected = both((on_chip, on_cpu), words, shown, session)
                assert found == expected, words
                asked += 1
    assert asked > 10
