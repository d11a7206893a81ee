"""Engines and families of other kinds than the scripted one: serving assumes nothing of them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge_vlm_ros.core import (
    CrossAttended,
    PromptPart,
    Question,
    SamplingOptions,
    ShownAs,
    Spliced,
)
from edge_vlm_ros.engines import ChosenToken, Logits, never
from edge_vlm_ros.serving import ModelSpec, ServingSettings, VlmPipeline
from edge_vlm_ros.serving.loading import load_model

GREEDY = SamplingOptions(max_tokens=16)
TALK = [('What is this?', 1), ('And this?', 1), ('Which is larger?', 0)]


class Wrapped:
    """An engine or a family around another one."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


def start(spec, *, engine=None, family=None):
    def load():
        loaded = load_model(spec)
        return replace(
            loaded,
            engine=engine(loaded.engine) if engine else loaded.engine,
            family=family(loaded.family) if family else loaded.family,
        )

    return VlmPipeline.start(load)


def talk(pipeline, frame, *, disturbed=False):
    """Have a conversation of three turns, one new frame in each of the first two."""
    answers = []
    pipeline.reset_session()
    for number, (text, frames) in enumerate(TALK):
        shown = tuple(
            frame(np.random.default_rng(number).integers(0, 256, (40, 40, 3)), side=40)
            for _ in range(frames)
        )
        question = Question(text, frames=shown, session_id='talk', sampling=GREEDY)
        answers.append(pipeline.ask(question).answer(60))
        assert answers[-1].success, answers[-1].message
        if disturbed:
            pipeline.ask(Question('zzz', sampling=GREEDY)).answer(60)
    return answers


class CrossAttending(Wrapped):
    """Gives features to attend to, and wants them back with the parts whose spans name them."""

    def __init__(self, inner):
        super().__init__(inner)
        self.encoded = 0

    def encode(self, inputs):
        self.encoded += 1
        rows = self.inner.encode(inputs).rows
        return CrossAttended(rows, rows_used=len(rows))

    def prefill(self, part, features, should_stop=never):
        named = {span.image for span in part.spans}
        assert all(isinstance(features[image], CrossAttended) for image in named)
        spliced = {image: Spliced(features[image].states) for image in named}
        self.inner.prefill(part, spliced, should_stop)


def test_cross_attended_images_are_kept_and_reused_like_others(scripted, frame):
    script = {'answers': [{'answer': '{question} {means}'}]}
    with VlmPipeline.open(scripted(**script)) as pipeline:
        expected = talk(pipeline, frame)
    engines = []

    def cross(inner):
        engines.append(CrossAttending(inner))
        return engines[-1]

    with start(scripted(**script), engine=cross) as pipeline:
        before = engines[0].encoded
        found = talk(pipeline, frame)
        assert engines[0].encoded - before == 2, 'each image once'
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.timings.cached_prompt_tokens == other.timings.cached_prompt_tokens


class ThreeAxes(Wrapped):
    """Positions as Qwen2-VL's: an image takes as many as its longer side has blocks."""

    def render_prefix(self, images, system_prompt):
        return self._placed(self.inner.render_prefix(images, system_prompt), 0)

    def render_next_turn(self, images, first_image, position):
        part = self.inner.render_next_turn(images, first_image, position)
        return self._placed(part, position)

    def render_suffix(self, question, position, **more):
        return self._placed(self.inner.render_suffix(question, position, **more), position)

    @staticmethod
    def _placed(part, position):
        rows, start = [], 0
        for span in part.spans:
            words = span.start - start
            rows.append(np.tile(np.arange(position, position + words), (3, 1)))
            position += words
            side = int(np.sqrt(len(span)))
            blocks = np.arange(len(span))
            rows.append(position + np.stack([blocks * 0, blocks // side, blocks % side]))
            position, start = position + side, span.stop
        words = len(part) - start
        rows.append(np.tile(np.arange(position, position + words), (3, 1)))
        return PromptPart(part.tokens, np.concatenate(rows, axis=1), position + words, part.spans)


@pytest.fixture(scope='module')
def mrope_spec(tmp_path_factory):
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.config import TinyConfig
    from support.tiny_model.make import make_tiny_model

    folder = make_tiny_model(tmp_path_factory.mktemp('mrope'), TinyConfig(mrope=True))
    return ModelSpec('cpu', str(folder), options={'prefill_chunk': 7, 'threads': 1})


def test_positions_on_three_axes_hold_the_great_law(mrope_spec, frame):
    with start(mrope_spec, family=ThreeAxes) as pipeline:
        reused = talk(pipeline, frame)
        fresh = talk(pipeline, frame, disturbed=True)
    assert [answer.text for answer in reused] == [answer.text for answer in fresh]
    for one, other in zip(reused[1:], fresh[1:], strict=True):
        assert one.timings.prompt_tokens == other.timings.prompt_tokens
        assert one.timings.cached_prompt_tokens > other.timings.cached_prompt_tokens


def test_positions_on_three_axes_are_followed_by_the_answers(scripted, frame):
    """The scripted engine refuses an answer token that does not stand at `next_position`."""
    spec = scripted(answers=[{'answer': '{question} {means}'}], limits={'prefill_chunk': 5})
    with VlmPipeline.open(spec) as plain, start(spec, family=ThreeAxes) as pipeline:
        expected, found = talk(plain, frame), talk(pipeline, frame)
    assert [answer.text for answer in found] == [answer.text for answer in expected]


class Filming(Wrapped):
    """Takes neighbouring frames of a camera for a video, two at a time, as Qwen2-VL does."""

    frames_per_input = 2
    shares_detail = False

    def __init__(self, inner):
        super().__init__(inner)
        self.seen = []

    def preprocess(self, decoded, shown_as=ShownAs.ALONE):
        self.seen.append((decoded.stamp_ns,))
        return self.inner.preprocess(decoded, shown_as)

    def preprocess_clip(self, frames):
        self.seen.append(tuple(decoded.stamp_ns for decoded in frames))
        inputs = [self.inner.preprocess(decoded, ShownAs.AMONG_OTHERS) for decoded in frames]
        pixels = np.mean([one.pixels for one in inputs], axis=0, dtype=np.float32)
        return replace(inputs[0], pixels=pixels, clip=frames[0].source.camera)


@pytest.fixture
def filming(scripted):
    """Open a pipeline whose family films; `seen` are the stamps it was shown together."""
    opened = []

    def make(**script):
        families = []

        def film(inner):
            families.append(Filming(inner))
            return families[-1]

        spec = scripted(answers=[{'answer': '{images} images: {means}'}], **script)
        opened.append(start(spec, family=film))
        families[0].seen.clear()
        return opened[-1], families[0].seen

    yield make
    for pipeline in opened:
        pipeline.close()


def clip(frame, number, camera='front'):
    return tuple(
        frame(10 * n, stamp_ns=n, camera=camera, side=8 + n) for n in range(1, number + 1)
    )


def test_neighbouring_frames_of_a_camera_are_shown_in_pairs(filming, frame):
    pipeline, seen = filming()
    frames = clip(frame, 5)
    answers = [pipeline.ask(Question('What?', frames=frames)).answer(10) for _ in range(2)]
    assert seen == [(1, 2), (3, 4), (5,)], 'and not again for the second question'
    for answer in answers:
        assert answer.text.startswith('3 images: ')
        assert [(ref.stamp_ns, ref.width) for ref in answer.frames] == [
            (n, 8 + n) for n in range(1, 6)
        ]
    cached = answers[1].timings.cached_prompt_tokens
    assert cached == answers[1].timings.prompt_tokens - 1


@pytest.mark.parametrize(
    ('cameras', 'groups'),
    [
        (['front'], [(1,)]),
        (['front', 'rear'], [(1,), (2,)]),
        (['front', 'front', 'rear', 'rear', 'rear'], [(1, 2), (3, 4), (5,)]),
        (['', '', ''], [(1,), (2,), (3,)]),
    ],
    ids=['alone', 'one of each camera', 'two clips', 'images that no camera took'],
)
def test_only_several_frames_of_one_camera_are_a_clip(filming, frame, cameras, groups):
    pipeline, seen = filming()
    frames = tuple(frame(10, stamp_ns=n + 1, camera=camera) for n, camera in enumerate(cameras))
    assert pipeline.ask(Question('What?', frames=frames)).answer(10).success
    assert seen == groups


def test_a_clip_goes_on_in_a_conversation_and_counts_by_pairs(filming, frame):
    pipeline, seen = filming(limits={'max_images': 3})
    first = Question('What?', frames=clip(frame, 4), session_id='s')
    assert pipeline.ask(first).answer(10).text.startswith('2 images')
    again = Question('And now?', frames=clip(frame, 4), session_id='s')
    assert len(pipeline.ask(again).answer(10).frames) == 4
    rear = clip(frame, 2, 'rear')
    assert pipeline.ask(Question('Well?', frames=rear, session_id='s')).answer(10).success
    assert seen == [(1, 2), (3, 4), (1, 2)]
    more = Question('Too many?', frames=(frame(9, stamp_ns=99),), session_id='s')
    answer = pipeline.ask(more).answer(10)
    assert 'forgotten' in answer.message
    assert [ref.source.camera for ref in answer.frames] == ['rear', 'rear', 'front']


QWEN2_VL = {
    'model_type': 'qwen2_vl',
    'hidden_size': 16,
    'vision_config': {
        'in_chans': 3,
        'patch_size': 14,
        'spatial_merge_size': 2,
        'temporal_patch_size': 2,
    },
}


@pytest.fixture
def qwen_spec(tmp_path, scripted):
    """The real family of a `model_type` over the scripted engine."""
    return lambda model_type: _qwen_spec(tmp_path / model_type, scripted, model_type)


@pytest.fixture
def qwen2_vl_spec(qwen_spec):
    return qwen_spec('qwen2_vl')


def _qwen_spec(folder, scripted, model_type):
    from tokenizers import Tokenizer

    from edge_vlm_ros.models import find_model

    own = find_model('scripted').tokenizer_folder
    tokenizer = Tokenizer.from_file(str(own / 'tokenizer.json'))
    names = ('vision_start', 'vision_end', 'image_pad', 'video_pad')
    tokenizer.add_special_tokens([f'<|{name}|>' for name in names])
    folder.mkdir()
    tokenizer.save(str(folder / 'tokenizer.json'))
    preprocessor = json.loads((own / 'preprocessor_config.json').read_text())
    preprocessor |= {'min_pixels': 56 * 56, 'max_pixels': 1120 * 1120, 'size': {}}
    (folder / 'preprocessor_config.json').write_text(json.dumps(preprocessor))
    (folder / 'config.json').write_text(json.dumps({**QWEN2_VL, 'model_type': model_type}))
    return scripted(tokenizer=str(folder), answers=[{'answer': '{images} images: {means}'}])


@pytest.mark.parametrize('model_type', ['qwen2_vl', 'qwen2_5_vl'])
def test_the_real_qwen_families_talk_about_images_and_clips(qwen_spec, frame, model_type):
    with VlmPipeline.open(qwen_spec(model_type)) as pipeline:
        image = tuple(frame(90, side=112) for _ in 'a')
        turns = [image, clip(frame, 5, 'rear'), ()]
        answers = [
            pipeline.ask(Question('What?', frames=shown, session_id='s')).answer(10)
            for shown in turns
        ]
        assert [answer.message for answer in answers] == [
            "the conversation 's' begins here",
            '',
            '',
        ]
        assert [answer.text.partition(' ')[0] for answer in answers] == ['1', '4', '4']
        assert answers[0].timings.vision_tokens == (112 // 28) ** 2
        for earlier, later in pairwise(answers):
            held = earlier.timings.prompt_tokens + earlier.timings.answer_tokens
            assert later.timings.cached_prompt_tokens == held


class GreedyHead(Wrapped):
    """Chooses greedily on the chip, and gives logits to whoever wants to sample."""

    def next_token(self, sampling):
        logits = self.inner.next_token(sampling)
        assert isinstance(logits, Logits)
        self.heads.append(sampling.temperature)
        return logits if sampling.temperature else ChosenToken(int(logits.values.argmax()))


@pytest.mark.parametrize('temperature', [0.0, 0.8])
def test_a_chip_may_choose_greedily_and_leave_sampling_to_the_host(scripted, temperature):
    GreedyHead.heads = []
    sampling = SamplingOptions(temperature=temperature, top_k=5, seed=3)
    with start(scripted(answers=[{'answer': 'Yes.'}]), engine=GreedyHead) as pipeline:
        answer = pipeline.ask(Question('Is it?', sampling=sampling)).answer(10)
    assert answer.text == 'Yes.'
    assert GreedyHead.heads.count(temperature) >= len('Yes.')


def test_sampling_is_taken_where_logits_can_be_read_beside_the_chips_own_head(open_scripted):
    pipeline = open_scripted(limits={'samples_on_chip': True, 'has_logits': True})
    hot = Question('Say', sampling=SamplingOptions(temperature=0.5))
    assert pipeline.ask(hot).answer(10).text == 'Say'


def test_an_engine_that_plans_nonsense_fails_the_question_and_not_the_process(scripted):
    class Confused(Wrapped):
        def plan_prefill(self, tokens):
            return (tokens - 1,) if tokens > 100 else self.inner.plan_prefill(tokens)

    with start(scripted(), engine=Confused) as pipeline:
        answer = pipeline.ask(Question('x' * 200)).answer(10)
        assert 'in pieces of' in answer.message
        assert pipeline.ask(Question('Hi')).answer(10).text == 'Hi'


PICTURES = [np.random.default_rng(seed).integers(0, 256, (40, 40, 3)) for seed in range(5)]
ORDER = [0, 1, 2, 3, 4, 2, 0, 4, 1, 3, 3, 0]
SAYS_WHAT_IT_SEES = {'answers': [{'answer': '{images} {means}'}]}


class Joined(Wrapped):
    """Keeps nothing of the KV cache that does not end with an image, as static graphs may."""

    def usable_prefix(self, shared, prompt, at_hand=None):
        ends = [span.stop for span in prompt.spans if span.stop <= shared]
        return self.inner.usable_prefix(max(ends, default=0), prompt, at_hand)


KINDS = {
    'scripted': lambda get: start(get('scripted')(**SAYS_WHAT_IT_SEES)),
    'scripted without a prefix': lambda get: start(
        get('scripted')(
            limits={'can_extend_prefix': False, 'prefill_chunk': 0}, **SAYS_WHAT_IT_SEES
        )
    ),
    'scripted token by token': lambda get: start(
        get('scripted')(limits={'prefill_chunk': 20, 'extension_chunk': 1}, **SAYS_WHAT_IT_SEES)
    ),
    'scripted with few features': lambda get: VlmPipeline.open(
        get('scripted')(**SAYS_WHAT_IT_SEES), settings=ServingSettings(max_cached_frames=2)
    ),
    'keeps whole images': lambda get: start(get('scripted')(**SAYS_WHAT_IT_SEES), engine=Joined),
    'cross-attended': lambda get: start(
        get('scripted')(**SAYS_WHAT_IT_SEES), engine=CrossAttending
    ),
    'three axes': lambda get: start(get('scripted')(**SAYS_WHAT_IT_SEES), family=ThreeAxes),
    'films': lambda get: start(get('scripted')(**SAYS_WHAT_IT_SEES), family=Filming),
    'greedy head': lambda get: start(get('scripted')(**SAYS_WHAT_IT_SEES), engine=GreedyHead),
    'real Qwen2-VL family': lambda get: start(get('qwen2_vl_spec')),
    'CPU': lambda get: start(get('tiny_spec')),
    'CPU, Qwen2-VL': lambda get: start(get('tiny_qwen_spec')),
    'CPU on three axes': lambda get: start(get('mrope_spec'), family=ThreeAxes),
}


@pytest.fixture(params=KINDS)
def open_kind(request):
    """Open a pipeline of one kind; closed after the test."""
    GreedyHead.heads = []
    opened = []

    def make():
        opened.append(KINDS[request.param](request.getfixturevalue))
        return opened[-1]

    yield make
    for pipeline in opened:
        pipeline.close()


def ask_about(pipeline, frame, number, **more):
    # One stamp and one time of arrival: only the pixels tell the pictures apart.
    shown = (frame(PICTURES[number], side=40, camera=''),)
    answer = pipeline.ask(Question('What is this?', frames=shown, sampling=GREEDY, **more))
    return answer.answer(60)


def test_of_five_alternating_pictures_under_one_question_each_answer_is_right(open_kind, frame):
    expected = []
    for number in range(5):
        fresh = open_kind()
        expected.append(ask_about(fresh, frame, number).text)
        fresh.close()
    pipeline = open_kind()
    found = [ask_about(pipeline, frame, number) for number in ORDER]
    assert [answer.message for answer in found] == [''] * len(ORDER)
    assert [answer.text for answer in found] == [expected[number] for number in ORDER]


def test_of_pictures_in_conversations_each_is_its_own(open_kind, frame):
    """Two conversations beside each other, a picture each, and one that is begun and cancelled."""
    expected = []
    for number in range(2):
        alone = open_kind()
        first = ask_about(alone, frame, number, session_id='s').text
        again = alone.ask(Question('And now?', session_id='s', sampling=GREEDY)).answer(60).text
        expected.append([first, again])
        alone.close()
    pipeline = open_kind()
    found = [[ask_about(pipeline, frame, n, session_id=f's{n}').text] for n in range(2)]
    gone = Question('Go on', session_id='s0', frames=(frame(77, side=40, camera=''),))
    pipeline.ask(gone).cancel()
    for number in range(2):
        question = Question('And now?', session_id=f's{number}', sampling=GREEDY)
        found[number].append(pipeline.ask(question).answer(60).text)
    assert found == expected


# Kinds that do not go on from all that the cache holds: from nothing, or from its last image.
KEEPS_NOTHING, KEEPS_IMAGES = {'scripted without a prefix'}, {'keeps whole images'}


def test_what_pictures_under_one_question_reuse(request, open_kind, frame):
    """0, n, 0, m, n: the same picture again pays for nothing, another one for all of it, another
    question for its words."""
    kind = request.node.callspec.params['open_kind']
    pipeline = open_kind()

    def ask(number, text='What is this?'):
        shown = (frame(PICTURES[number], side=40, camera=''),)
        question = Question(text, frames=shown, sampling=GREEDY)
        timings = pipeline.ask(question).answer(60).timings
        return timings.cached_prompt_tokens, timings.prompt_tokens, timings.vision_tokens

    first, n_tokens, vision = ask(0)
    again, *_ = ask(0)
    other, *_ = ask(1)
    asked, m_tokens, _ = ask(1, 'Where does it stand?')
    last, *_ = ask(1, 'Where does it stand?')
    assert first == 0
    if kind in KEEPS_NOTHING:
        assert (again, other, asked, last) == (0, 0, 0, 0)
        return
    assert other <= n_tokens - vision - len('What is this?'), 'nothing of another picture'
    assert other + vision <= asked < m_tokens - 1, 'the picture, and not the words'
    if kind in KEEPS_IMAGES:
        assert (again, last) == (asked, asked), 'as far as the picture goes'
    else:
        assert (again, last) == (n_tokens - 1, m_tokens - 1)


BLOCK = 10


def changed(pixels, place):
    """Change one block of pixels."""
    other = pixels.copy()
    top, left = divmod(place, 40 // BLOCK)
    block = other[BLOCK * top : BLOCK * (top + 1), BLOCK * left : BLOCK * (left + 1)]
    block[...] = 255 - block
    return other


def test_pictures_that_differ_in_one_block_of_pixels_are_never_mixed_up(open_kind, frame):
    """Same stamp, same camera: what is reused of the one for the other is the opening alone."""
    twins = [PICTURES[0], *(changed(PICTURES[0], place) for place in (0, 6, 15))]

    def ask(pipeline, number):
        shown = (frame(twins[number], side=40, camera=''),)
        return pipeline.ask(Question('What is this?', frames=shown, sampling=GREEDY)).answer(60)

    expected = []
    for number in range(len(twins)):
        fresh = open_kind()
        expected.append(ask(fresh, number).text)
        fresh.close()
    pipeline = open_kind()
    for number in (0, 1, 0, 2, 1, 3, 3, 0, 2):
        answer = ask(pipeline, number)
        assert answer.text == expected[number]
    for number in (0, 1, 2, 3):
        timings = ask(pipeline, number).timings
        opening = timings.prompt_tokens - timings.vision_tokens - len('What is this?')
        assert timings.cached_prompt_tokens <= opening
