"""The steps of the demo, with a robot that is a few lines long."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_vlm_ros.demo.console import Console
from edge_vlm_ros.demo.picture import Card, save_picture
from edge_vlm_ros.demo.show import MAX_TRIES, DemoError, Reply, Show, UsedFrame, frames_at
from edge_vlm_ros.demo.truth import ClipMoment, ClipTruth, Thing
from edge_vlm_ros.vision.captions import wrapped

FPS = 10
TRUE_ANSWERS = {
    'Describe what you see.': 'A red box in the middle.',
    'What color is the box?': 'Red.',
    'What is moving?': 'Nothing is moving.',
    'Is the way ahead clear?': 'Yes.',
}


class Robot:
    """Answers from a table; its camera's time goes on whenever it is looked at."""

    def __init__(self, answers, **reply):
        self.answers = answers
        self.reply = reply
        self.now_s = 0.0

    def media_time_s(self):
        self.now_s = (self.now_s + 0.1) % 9.9
        return self.now_s

    def watched_s(self):
        return 100.0

    def wait(self, seconds):
        pass

    def ask(self, query, on_words, timeout_s):
        text = self.answers[query.words]
        for word in text.split(' '):
            on_words(f'{word} ')
        step_s = query.seconds / max(query.frames - 1, 1)
        times = [self.now_s - query.seconds + step_s * n for n in range(query.frames)]
        frames = tuple(UsedFrame('camera', round(1e9 * t), t) for t in times)
        fields = {'text': text, 'streamed': text, 'problem': '', 'frames': frames}
        return Reply(**{**fields, **self.reply}, first_token_s=0.1, tokens_per_second=50.0)

    def ask_ready(self, query, on_words, timeout_s):
        reply = self.ask(query, on_words, timeout_s)
        return replace(reply, first_token_s=0.02, is_ready=True)


@pytest.fixture
def clip(tmp_path):
    """Write a video whose n-th frame has the grey level 2 n."""
    folder = tmp_path / 'clip'
    folder.mkdir()
    path = folder / 'grey.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), FPS, (64, 48))
    for number in range(100):
        writer.write(np.full((48, 64, 3), 2 * number, np.uint8))
    writer.release()
    return path


@pytest.fixture
def show(clip):
    """Make a show about one red box that stands in the middle, far away."""
    moments = [ClipMoment(n / FPS, (Thing('red', 'box', 0.5, 2.0),)) for n in range(100)]

    def make(robot):
        out = io.StringIO()
        return Show(robot, Console(out), clip, ClipTruth(moments)), out

    return make


def test_right_answers_make_a_good_show(show):
    good, out = show(Robot(TRUE_ANSWERS))
    assert good.run() is True
    text = out.getvalue()
    assert text.count('right') == 5
    for question, answer in TRUE_ANSWERS.items():
        assert f'Q  {question}' in text
        assert f'A  {answer}' in text
    assert 'first word after 0.10 s, 50 tokens/s' in text
    assert '\x1b' not in text
    assert 'Q  Is the way ahead clear? (made ready before)' in text
    assert '; ready: first word after 20 ms, cold after 100 ms' in text
    assert good.cards[-1].facts in text


@pytest.mark.parametrize('question', TRUE_ANSWERS)
def test_one_wrong_answer_makes_a_bad_show(show, question):
    bad, out = show(Robot({**TRUE_ANSWERS, question: 'A green cow.'}))
    assert bad.run() is False
    assert f'wrong: {TRUE_ANSWERS[question]}' in out.getvalue()
    is_last = question == list(TRUE_ANSWERS)[-1]
    assert [card.good for card in bad.cards].count(False) == 1 + is_last


def test_an_error_ends_the_show_with_its_step(show):
    broken, _ = show(Robot(TRUE_ANSWERS, problem='the chip got hot'))
    with pytest.raises(DemoError, match=r"asking 'Describe.*the chip got hot"):
        broken.run()


def test_words_that_were_not_streamed_end_the_show(show):
    torn, _ = show(Robot(TRUE_ANSWERS, streamed='A red'))
    with pytest.raises(DemoError, match='streaming'):
        torn.run()


def test_frames_without_a_known_time_are_asked_about_again_and_no_longer(show):
    unknown = (UsedFrame('camera', 1, None),)
    lost, out = show(Robot(TRUE_ANSWERS, frames=unknown))
    with pytest.raises(DemoError, match='no clear moment'):
        lost.run()
    assert out.getvalue().count('Describe what you see.') == MAX_TRIES


def test_the_frames_shown_are_those_of_the_times(clip):
    frames = frames_at(clip, [1.0, 2.0, 9.5])
    assert [round(float(frame.mean()), -1) for frame in frames] == [20, 40, 190]


def test_the_picture_has_each_frame_at_its_place(tmp_path):
    red, green = (np.full((48, 64, 3), level, np.uint8) for level in ((200, 0, 0), (0, 200, 0)))
    path = tmp_path / 'new' / 'picture.png'
    cards = [
        Card([red], 'What is this?', 'Red.', 'one', good=True),
        Card([red, green], 'What changed? ' * 30, 'Everything did. ' * 30, 'two', good=False),
        Card([green], 'Grüße?', '', 'three', good=True),
    ]
    save_picture(path, 'Title', cards)
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert picture.shape == (76 + 2 * (480 + 196 + 24), 2 * 664 + 24, 3)
    assert tuple(picture[200, 300]) == (200, 0, 0)
    assert tuple(picture[200, 900]) == (0, 200, 0)
    assert tuple(picture[900, 300]) == (0, 200, 0)
    strip = picture[76 + 480 - 30]
    assert tuple(strip[24 + 664 + 100]) == (200, 0, 0)
    assert tuple(strip[24 + 664 + 500]) == (0, 200, 0)


def test_lines_break_where_they_must_and_lose_no_word():
    text = 'A yellow cone on the left, a red box in the middle and a blue ball on the right.'
    lines = wrapped(text, 0.72, 300)
    assert len(lines) > 2
    assert ' '.join(lines) == text
    assert wrapped('Unbreakable', 0.72, 10) == ['Unbreakable']
    assert wrapped('', 0.72, 300) == []


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_colours_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv('NO_COLOR', raising=False)
    out = _Terminal()
    Console(out).verdict(good=True, text='right')
    assert '\x1b[32mright\x1b[0m' in out.getvalue()
    monkeypatch.setenv('NO_COLOR', '1')
    out = _Terminal()
    Console(out).verdict(good=True, text='right')
    assert out.getvalue() == '     right\n'


def test_an_answer_cannot_command_the_terminal(monkeypatch):
    monkeypatch.delenv('NO_COLOR', raising=False)
    out = _Terminal()
    console = Console(out)
    console.question('Well?\x1b[2J')
    console.words('red\x1b[2J\x9b31m\u202e')
    console.step('ask', 'a\x07b')
    console.verdict(good=False, text='no\x1b]0;x')
    codes = out.getvalue().split('\x1b')[1:]
    assert codes
    assert all(code.partition('m')[0].lstrip('[').isdigit() for code in codes)
    assert not set('\x07\x9b\u202e') & set(out.getvalue())
