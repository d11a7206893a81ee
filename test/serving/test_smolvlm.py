"""SmolVLM through the pipeline: what its prompts hold in every kind of turn."""

from __future__ import annotations

import numpy as np
import pytest
from support.families import load_family

from edge_vlm_ros.core import Question, SamplingOptions, ShownAs
from edge_vlm_ros.serving import VlmPipeline

SHORT = SamplingOptions(max_tokens=6)
TILE_TOKENS = 4
ALONE_TOKENS = len('User:') + 2 + 4 * (2 + TILE_TOKENS) + 1 + (1 + 2 + TILE_TOKENS) + 1
"""With one frame of 2 x 2 tiles: the row's break, the two in one, the closing token."""


@pytest.fixture(scope='module')
def pipeline(smolvlm_spec):
    with VlmPipeline.open(smolvlm_spec) as opened:
        yield opened


def picture(frame, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3))
    return frame(pixels, side=40, stamp_ns=seed + 1)


def ask(pipeline, text, *frames, **more):
    answer = pipeline.ask(Question(text, frames=frames, sampling=SHORT, **more)).answer(60)
    assert answer.success, answer.message
    return answer


@pytest.fixture
def family(pipeline, smolvlm_spec):
    from pathlib import Path

    return load_family(Path(smolvlm_spec.model), pipeline.info.limits, max_tiles=4)


def tokens_of(family, text):
    return len(family.tokenizer.encode(text))


def test_words_alone_follow_a_blank_and_words_after_images_none(pipeline, family, frame):
    around = 1 + tokens_of(family, 'User:') + 1 + tokens_of(family, '\nAssistant:')
    words = tokens_of(family, 'What?')
    assert ask(pipeline, 'What?').timings.prompt_tokens == around + 1 + words
    shown = ask(pipeline, 'What?', picture(frame, 0), shown_as=ShownAs.AMONG_OTHERS)
    assert shown.timings.prompt_tokens == around + words + TILE_TOKENS + 3


def test_a_frame_alone_is_cut_and_each_of_several_is_not(pipeline, frame):
    alone = ask(pipeline, 'What?', picture(frame, 0))
    assert alone.timings.vision_tokens == 5 * TILE_TOKENS
    several = ask(pipeline, 'What?', *(picture(frame, seed) for seed in range(3)))
    assert several.timings.vision_tokens == 3 * TILE_TOKENS


def test_later_turns_have_a_blank_where_they_show_nothing_new(pipeline, family, frame):
    """Also once older turns are forgotten and the others are written again."""
    session = {'session_id': 'walk'}
    before = ask(pipeline, 'What?', picture(frame, 0), **session)
    turn = tokens_of(family, '\nUser:') + 2 + tokens_of(family, 'And?\nAssistant:')
    spent = before.timings.prompt_tokens + before.timings.answer_tokens
    later = ask(pipeline, 'And?', **session)
    assert later.timings.prompt_tokens - spent in {turn + 1, turn}
    shown = ask(pipeline, 'And?', picture(frame, 1), **session)
    spent = later.timings.prompt_tokens + later.timings.answer_tokens
    assert shown.timings.prompt_tokens - spent - shown_tokens(shown, later) in {turn, turn - 1}


def shown_tokens(answer, before):
    extra = answer.timings.vision_tokens - before.timings.vision_tokens
    return extra + 2 * 5 + 2 + 1
