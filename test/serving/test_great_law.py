"""The great law, through the pipeline and on real arithmetic: what the KV cache already holds
changes the time an answer takes, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from edge_vlm_ros.core import Prefix, Question, SamplingOptions, ShownAs
from edge_vlm_ros.serving import VlmPipeline
from edge_vlm_ros.serving.loading import load_model

GREEDY = SamplingOptions(max_tokens=24)


# Models, and tokens of a prompt before its first image: Qwen2-VL's have a system text.
OPENINGS = {'tiny_spec': 8, 'smolvlm_spec': 8, 'tiny_qwen_spec': 44}


@pytest.fixture(scope='module', params=OPENINGS)
def spec(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope='module')
def pipeline(spec):
    with VlmPipeline.open(spec) as opened:
        yield opened


def forget_all(pipeline):
    """Have the KV cache hold something that shares nothing with any prompt but its opening."""
    pipeline.reset_session()
    pipeline.ask(Question('zzz', sampling=SamplingOptions(max_tokens=1))).answer(60)


def ask(pipeline, text, **more):
    answer = pipeline.ask(Question(text, sampling=GREEDY, **more)).answer(60)
    assert answer.success, answer.message
    return answer


def pictures(frame, seed, number):
    rng = np.random.default_rng(seed)
    return tuple(
        frame(rng.integers(0, 256, (40, 40, 3)), stamp_ns=n + 1, side=40) for n in range(number)
    )


@pytest.mark.parametrize('seed', range(4))
def test_answers_are_equal_with_and_without_reuse(request, pipeline, frame, seed):
    frames = pictures(frame, seed, seed)
    questions = ['What do you see?', 'What do you hear?', 'What do you see?']
    fresh = []
    forget_all(pipeline)
    reused = [ask(pipeline, text, frames=frames) for text in questions]
    for text in questions:
        forget_all(pipeline)
        fresh.append(ask(pipeline, text, frames=frames))
    assert [answer.text for answer in reused] == [answer.text for answer in fresh]
    cached = [answer.timings.cached_prompt_tokens for answer in (*reused[1:], *fresh)]
    vision_tokens = reused[0].timings.vision_tokens
    assert min(cached[:2]) > vision_tokens
    opening = OPENINGS[request.node.callspec.params['spec']]
    assert max(cached[2:]) <= opening, 'not more than the opening of the prompt'


def test_a_conversation_goes_on_alike_with_and_without_reuse(pipeline, frame):
    first, second = pictures(frame, 7, 2)
    turns = [('What is this?', (first,)), ('And this?', (second,)), ('Which is larger?', ())]

    def talk(is_disturbed):
        forget_all(pipeline)
        answers = {}
        for text, frames in turns:
            answers[text] = ask(pipeline, text, session_id='talk', frames=frames)
            if is_disturbed:
                ask(pipeline, 'zzz')
        return list(answers.values())

    reused, fresh = talk(is_disturbed=False), talk(is_disturbed=True)
    assert [answer.text for answer in reused] == [answer.text for answer in fresh]
    for one, other in zip(reused[1:], fresh[1:], strict=True):
        assert one.timings.prompt_tokens == other.timings.prompt_tokens
        assert one.timings.cached_prompt_tokens > other.timings.cached_prompt_tokens


def test_a_question_cancelled_half_way_changes_no_later_answer(pipeline, frame):
    frames = pictures(frame, 9, 2)
    forget_all(pipeline)
    expected = ask(pipeline, 'What do you see?', frames=frames).text
    for chunks in range(1, 5):
        stream = pipeline.ask(Question('What do you hear?', frames=frames))
        for chunk in stream:
            if chunk.sequence + 1 >= chunks:
                break
        stream.cancel()
        assert ask(pipeline, 'What do you see?', frames=frames).text == expected


class Forgetful:
    """An engine that goes on from nothing: what every other one is compared with."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def usable_prefix(self, shared, prompt, at_hand=None):
        return 0


@pytest.fixture(scope='module')
def cold(spec):
    def load():
        loaded = load_model(spec)
        return replace(loaded, engine=Forgetful(loaded.engine))

    with VlmPipeline.start(load) as opened:
        yield opened


class Day:
    """What happens to a robot in a day, by chance; told twice, it is the same."""

    def __init__(self, seed, frame):
        self.random = np.random.default_rng(seed)
        drawn = [self.random.integers(0, 256, (40, 40, 3)) for _ in range(8)]
        self.frames = [frame(each, stamp_ns=n + 1, side=40) for n, each in enumerate(drawn)]
        self.window = [0]

    def draw(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def some_frame(self):
        return int(self.random.integers(len(self.frames)))

    def prefix(self):
        """What the next question may be expected to show: the window, another one, or nothing."""
        window = self.draw(self.window, self.window, [*self.window, self.some_frame()], [])
        shown = tuple(self.frames[number] for number in window)
        session = self.draw('', '', 'a')
        return Prefix(shown, session_id=session, shown_as=ShownAs.AMONG_OTHERS)

    def question(self):
        """About the window, which may grow or start again; or a conversation goes on."""
        text = self.draw('What is it?', 'What is this?', 'Where?')
        about = self.draw('window', 'window', 'a', 'b')
        if about != 'window':
            shown = tuple(self.frames[self.some_frame()] for _ in range(self.draw(0, 1)))
            return Question(text, frames=shown, session_id=about, sampling=GREEDY)
        change = self.draw('grow', 'grow', 'restart', 'stay')
        if change == 'restart':
            self.window = self.window[-self.draw(1, 2) :]
        elif change == 'grow' and len(self.window) < 5:
            self.window = [*self.window, self.some_frame()]
        shown = tuple(self.frames[number] for number in self.window)
        return Question(text, frames=shown, shown_as=ShownAs.AMONG_OTHERS, sampling=GREEDY)


@pytest.mark.parametrize('seed', range(8))
def test_a_day_of_windows_and_conversations_is_answered_as_if_nothing_was_kept(
    pipeline, cold, frame, seed
):
    """With prefixes and offers ahead and cancelled questions in between, which only the one
    pipeline meets; and whatever of that work is not done when the question comes."""
    day = Day(seed, frame)
    pipeline.reset_session()
    cold.reset_session()
    reused = 0
    for _ in range(14):
        disturbance = day.draw('none', 'wish', 'wish', 'offer', 'cancel', 'cancel later')
        if disturbance == 'wish':
            pipeline.want_prefix(day.prefix())
            time.sleep(day.draw(0.0, 0.002, 0.05))  # from nothing of it to all of it
        elif disturbance == 'offer':
            pipeline.offer_frames([day.frames[day.some_frame()]], ShownAs.AMONG_OTHERS)
        elif disturbance != 'none':
            shown = (day.frames[day.some_frame()],)
            stream = pipeline.ask(Question('Never mind', frames=shown, sampling=GREEDY))
            if disturbance == 'cancel later':
                next(iter(stream))
            stream.cancel()
        question = day.question()
        answer, expected = (each.ask(question).answer(60) for each in (pipeline, cold))
        assert answer.success, answer.message
        assert answer.text == expected.text
        assert answer.timings.prompt_tokens == expected.timings.prompt_tokens
        assert expected.timings.cached_prompt_tokens == 0
        reused += answer.timings.cached_prompt_tokens
    assert reused > 0
    pipeline.want_prefix(None)
