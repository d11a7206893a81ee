"""The shipped demo model loads and renders the prompt it was trained on."""

from importlib import resources

import numpy as np
import pytest
from support.families import load_family

from edge_vlm_ros.core import Frame, FrameSource, ShownAs, join_parts

BLOCK = '<img>' + '<IMG_CONTEXT>' * 16 + '</img>\n'


@pytest.fixture(scope='module')
def demo():
    return load_family(resources.files('edge_vlm_ros') / 'demo' / 'model')


def inputs(family, count):
    pixels = np.full((120, 160, 3), 90, np.uint8)
    frame = Frame(pixels, 0, FrameSource('front'))
    shown_as = ShownAs.ALONE if count == 1 else ShownAs.AMONG_OTHERS
    return [family.preprocess(frame, shown_as) for _ in range(count)]


def prompt(family, count, question):
    prefix = family.render_prefix(inputs(family, count), '')
    part = join_parts([prefix, family.render_suffix(question, prefix.next_position)])
    return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)


def test_a_still_is_one_tile_of_sixteen_placeholders(demo):
    (still,) = inputs(demo, 1)
    assert still.pixels.shape == (1, 3, 112, 112)
    assert still.tokens == 16


def test_a_question_about_a_still(demo):
    assert prompt(demo, 1, 'Is there a red box?') == (
        f'<|im_start|>user\n{BLOCK}Is there a red box?<|im_end|>\n<|im_start|>assistant\n'
    )


def test_a_question_about_a_clip(demo):
    frames = f'Frame1: {BLOCK}Frame2: {BLOCK}Frame3: {BLOCK}'
    assert prompt(demo, 3, 'What is moving?') == (
        f'<|im_start|>user\n{frames}What is moving?<|im_end|>\n<|im_start|>assistant\n'
    )


def test_a_question_about_nothing_shown(demo):
    assert prompt(demo, 0, 'Who are you?') == (
        '<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n'
    )


def test_a_second_turn(demo):
    part = demo.render_next_turn([], first_image=1, position=40)
    part = join_parts([part, demo.render_suffix('And the ball?', part.next_position)])
    assert demo.tokenizer.decode(part.tokens.tolist(), keep_special=True) == (
        '<|im_end|>\n<|im_start|>user\nAnd the ball?<|im_end|>\n<|im_start|>assistant\n'
    )


def test_the_answer_ends_with_the_turn(demo):
    assert demo.tokenizer.token_id('<|im_end|>') in demo.stop_tokens
