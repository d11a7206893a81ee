"""A prompt that gains a frame at its end begins with the prompt that it was, in every family: so
what was prefilled of a watched scene serves when one more frame is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import load_family
from support.reference.internvl2_cases import internlm2_config, phi3_config

from edge_vlm_ros.core import (
    ArrivalTime,
    FeatureKey,
    Frame,
    FrameKey,
    FrameSource,
    RawImage,
    ShownAs,
    StoredFrame,
    join_parts,
)
from edge_vlm_ros.families.qwen3_vl import Qwen3VlFamily
from edge_vlm_ros.serving.kv_record import KvRecord
from edge_vlm_ros.serving.shown_frames import group_frames

DATA = Path(__file__).parents[1] / 'text' / 'data'
MOST = 6
WORDS = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=30).filter(
    lambda text: text.strip()
)

within_a_fixture = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def sentencepiece_family(model_folder, form):
    name, config = {
        'internlm2-chat': ('bare', internlm2_config()),
        'phi3-chat': ('prefix', phi3_config()),
    }[form]
    folder = model_folder(template=form)
    (folder / 'tokenizer.json').unlink()
    (folder / 'tokenizer.model').write_bytes((DATA / f'{name}.model').read_bytes())
    (folder / 'tokenizer_config.json').write_text(json.dumps(config), encoding='utf-8')
    return load_family(folder)


FAMILIES = {
    'InternVL3': lambda get: load_family(get('model_folder')()),
    'InternVL2.5, no line breaks': lambda get: load_family(
        get('model_folder')(template='Hermes-2')
    ),
    'InternVL2 2B': lambda get: sentencepiece_family(get('model_folder'), 'internlm2-chat'),
    'InternVL2 4B': lambda get: sentencepiece_family(get('model_folder'), 'phi3-chat'),
    'the demo model': lambda _: load_family(resources.files('edge_vlm_ros') / 'demo' / 'model'),
    'Qwen2-VL': lambda get: load_family(get('qwen2_vl_folder')()),
    'Qwen2.5-VL': lambda get: load_family(get('qwen2_5_vl_folder')()),
    'Qwen3-VL': lambda get: load_family(get('qwen3_vl_folder')()),
    'SmolVLM': lambda get: load_family(get('smolvlm_folder')()),
    'Llama 3.2 Vision': lambda get: load_family(get('mllama_folder')()),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param](request.getfixturevalue)


@pytest.fixture(params=['Qwen2-VL', 'Qwen2.5-VL', 'Qwen3-VL'])
def qwen2_vl(request):
    return FAMILIES[request.param](request.getfixturevalue)


def scene(number, side=64):
    drawn = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    return Frame(drawn, number, FrameSource('front'))


def window(family, count, shown_as=ShownAs.AMONG_OTHERS):
    return [family.preprocess(scene(number), shown_as) for number in range(count)]


def assert_begins_with(longer, shorter, *, but=0):
    """Compare all that tells KV rows apart, as `serving.kv_record` does."""
    kept = len(shorter) - but
    assert kept < len(longer)
    assert longer.tokens[:kept].tolist() == shorter.tokens[:kept].tolist()
    assert longer.positions[..., :kept].tolist() == shorter.positions[..., :kept].tolist()
    assert longer.slice(0, kept).spans == shorter.slice(0, kept).spans


@within_a_fixture
@given(count=st.integers(1, MOST), system=st.one_of(st.just(''), WORDS))
def test_with_one_more_frame_among_others_a_prompt_begins_with_what_it_was(family, count, system):
    shown = window(family, count + 1)
    shorter = family.render_prefix(shown[:-1], system)
    assert_begins_with(family.render_prefix(shown, system), shorter)


@within_a_fixture
@given(count=st.integers(1, 3), more=st.integers(0, 2), question=WORDS)
def test_so_does_the_prompt_of_a_later_turn(family, count, more, question):
    first = family.render_prefix(window(family, more), '')
    asked = family.render_suffix(question, first.next_position)
    turns = [
        family.render_next_turn(window(family, frames), more, asked.next_position)
        for frames in (count, count + 1)
    ]
    assert_begins_with(turns[1], turns[0])


def test_inputs_say_how_they_are_shown(family):
    for way in (ShownAs.ALONE, ShownAs.AMONG_OTHERS):
        assert family.preprocess(scene(1), way).shown_as is way
    one_of = family.preprocess_one_of(scene(1), 2).shown_as
    is_told = family.shares_detail
    assert one_of is (ShownAs.ONE_OF_IMAGES if is_told else ShownAs.AMONG_OTHERS)
    clip = family.preprocess_clip([scene(1)])
    knows_videos = family.frames_per_input > 1
    assert clip.shown_as is (ShownAs.VIDEO if knows_videos else ShownAs.AMONG_OTHERS)


def test_what_a_frame_becomes_does_not_depend_on_how_many_are_beside_it(family):
    one, again = window(family, 1)[0], window(family, 3)[0]
    np.testing.assert_array_equal(one.pixels, again.pixels)
    assert replace(one, pixels=again.pixels) == again


def test_a_lone_frame_of_internvl_is_labelled_among_others_and_not_alone(model_folder):
    family = load_family(model_folder(system_message=''))

    def spelt(*ways):
        shown = [replace(family.preprocess(scene(1), way), tokens=1) for way in ways]
        part = family.render_prefix(shown, '')
        return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)

    block = '<img><IMG_CONTEXT></img>\n'
    alone, among = ShownAs.ALONE, ShownAs.AMONG_OTHERS
    assert spelt(alone) == f'<|im_start|>user\n{block}'
    assert spelt(among) == f'<|im_start|>user\nFrame1: {block}'
    assert spelt(among, among) == f'<|im_start|>user\nFrame1: {block}Frame2: {block}'
    images = f'<|im_start|>user\nImage-1: {block}Image-2: {block}'
    one_of = ShownAs.ONE_OF_IMAGES
    assert spelt(alone, alone) == spelt(one_of, one_of) == images
    assert spelt(one_of) == f'<|im_start|>user\nImage-1: {block}'


# --- clips of Qwen2-VL and its successors --------------------------------------------------------


def stored(number):
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
    image = RawImage('rgb8', 64, 64, 3 * 64, pixels.tobytes())
    return StoredFrame(FrameSource('front'), number, image, received_ns=number + 1)


def render_clip(family, count):
    """Render a video as serving groups its frames; give the prompt and the keys of its inputs."""
    frames = [stored(number) for number in range(count)]
    groups = group_frames(frames, ShownAs.VIDEO, family.frames_per_input)
    inputs = [
        family.preprocess_clip([scene(frame.stamp_ns) for frame in group.frames])
        for group in groups
    ]
    return family.render_prefix(inputs, ''), [group.key for group in groups]


def closing_tokens(family):
    """Tokens that end a clip as a whole: Qwen3-VL ends each pair."""
    return 0 if isinstance(family, Qwen3VlFamily) else 1


@pytest.mark.parametrize('inputs', range(1, 5))
def test_a_video_grows_by_whole_inputs_and_keeps_all_but_its_closing_token(qwen2_vl, inputs):
    step = qwen2_vl.frames_per_input
    assert step == 2
    shorter, keys = render_clip(qwen2_vl, inputs * step)
    longer, more_keys = render_clip(qwen2_vl, (inputs + 1) * step)
    assert_begins_with(longer, shorter, but=closing_tokens(qwen2_vl))
    assert shorter.tokens[-1] == qwen2_vl.tokenizer.token_id('<|vision_end|>')
    record = KvRecord()
    record.append(shorter, keys)
    assert record.shared(longer, more_keys) == len(shorter) - closing_tokens(qwen2_vl)


def test_a_video_whose_last_input_is_filled_up_starts_again_there(qwen2_vl):
    """Half a pair is another input than the pair: what precedes it is kept."""
    shorter, keys = render_clip(qwen2_vl, 3)
    longer, more_keys = render_clip(qwen2_vl, 4)
    record = KvRecord()
    record.append(shorter, keys)
    assert record.shared(longer, more_keys) == shorter.spans[1].start


# --- what the record of the KV cache makes of it -------------------------------------------------


@within_a_fixture
@given(count=st.integers(1, MOST), question=WORDS)
def test_a_question_after_a_window_that_grew_pays_for_new_frames_and_its_words(
    family, count, question
):
    keys = [
        FeatureKey((FrameKey('front', '/image', n, ArrivalTime(n)),), ShownAs.AMONG_OTHERS)
        for n in range(count + 1)
    ]
    shown = window(family, count + 1)
    ahead = family.render_prefix(shown[:-1], '')
    record = KvRecord()
    record.append(ahead, keys[:-1])
    prefix = family.render_prefix(shown, '')
    whole = join_parts([prefix, family.render_suffix(question, prefix.next_position)])
    assert record.shared(whole, keys) == len(ahead)
    assert record.shared(whole, [keys[-1], *keys[1:]]) <= ahead.spans[0].start, 'another frame'
