"""A family that tiles gives a frame alone many tiles, and each frame of a clip one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.patience import Patience

from edge_vlm_ros.core import (
    BadRequestError,
    ErrorCode,
    FrameSource,
    Prefix,
    Question,
    RawImage,
    Readiness,
    SamplingOptions,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.serving import ModelSpec, VlmPipeline

SHORT = SamplingOptions(max_tokens=8)


def frame_of(width, height, stamp_ns, camera='front'):
    pixels = np.random.default_rng(stamp_ns).integers(0, 255, (height, width, 3), np.uint8)
    image = RawImage('rgb8', width, height, 3 * width, pixels.tobytes())
    return StoredFrame(FrameSource(camera, '/image', 'optical'), stamp_ns, image, stamp_ns)


def wide_frame(stamp_ns):
    return frame_of(80, 40, stamp_ns)


def tiling_spec(tmp_path, **options):
    from support.tiny_model.make import make_tiny_model

    folder = make_tiny_model(tmp_path)
    config = json.loads((folder / 'config.json').read_text())
    config.update(dynamic_image_size=True, max_dynamic_patch=4, use_thumbnail=True)
    (folder / 'config.json').write_text(json.dumps(config))
    return ModelSpec('cpu', str(folder), options={'threads': 1, **options})


def vision_tokens(pipeline, *frames, **more):
    answer = pipeline.ask(Question('What?', frames=frames, sampling=SHORT, **more)).answer(60)
    assert answer.success, answer.message
    return answer.timings.vision_tokens


def test_the_same_frame_alone_and_in_a_clip_has_other_tiles(tmp_path):
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        one, two = wide_frame(1), wide_frame(2)
        alone = vision_tokens(pipeline, one)
        assert alone >= 3 * vision_tokens(pipeline, one, two) / 2
        assert vision_tokens(pipeline, one) == alone


def test_several_cameras_share_the_tiles_of_one_image_also_ahead(tmp_path):
    """Two of four tiles and a thumbnail for each of two; what was made ahead is that, too."""
    shown = frame_of(80, 40, 1), frame_of(80, 40, 2, 'rear')
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        tile = vision_tokens(pipeline, shown[0], shown_as=ShownAs.AMONG_OTHERS)
        assert vision_tokens(pipeline, *shown) == 2 * 3 * tile
        third = frame_of(80, 40, 3, 'left')
        assert vision_tokens(pipeline, *shown, third) == 3 * tile
        assert vision_tokens(pipeline, *shown, frame_of(80, 40, 4, 'rear')) == 3 * tile, 'clips'
        cold = pipeline.ask(Question('What?', frames=shown, sampling=SHORT)).answer(60)
    window = ShownAs.ONE_OF_IMAGES  # as a window of two cameras' stills is
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        reports = []
        pipeline.listen_ahead(reports.append)
        pipeline.want_prefix(Prefix(shown, shown_as=window))
        patience = Patience(20)
        while not (reports and len(reports[-1].ready) == 2):
            assert not patience.is_over()
            patience.look()
        question = Question('What?', frames=shown, sampling=SHORT, shown_as=window)
        answer = pipeline.ask(question).answer(60)
    assert (answer.text, answer.readiness) == (cold.text, Readiness.PREFIX)
    assert answer.timings.vision_tokens == 2 * 3 * tile


def test_a_question_says_in_how_many_tiles_its_frames_are_shown(tmp_path):
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        one, two = wide_frame(1), wide_frame(2)
        alone = vision_tokens(pipeline, one)
        several = vision_tokens(pipeline, one, two)
        assert 2 * vision_tokens(pipeline, one, shown_as=ShownAs.AMONG_OTHERS) == several
        assert vision_tokens(pipeline, one, two, shown_as=ShownAs.ALONE) == 2 * alone


def test_what_was_made_ahead_one_way_is_never_shown_another_way(tmp_path):
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        one, two = wide_frame(1), wide_frame(2)
        alone, several = vision_tokens(pipeline, one), vision_tokens(pipeline, one, two)
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        pipeline.offer_frames([one], ShownAs.AMONG_OTHERS)
        assert vision_tokens(pipeline, one) == alone
        pipeline.offer_frames([two])
        assert vision_tokens(pipeline, one, two) == several


def test_the_number_of_tiles_may_be_bounded_by_an_option(tmp_path):
    with VlmPipeline.open(tiling_spec(tmp_path, max_tiles=1, resize='fast')) as pipeline:
        one, two = wide_frame(1), wide_frame(2)
        assert 2 * vision_tokens(pipeline, one) == vision_tokens(pipeline, one, two)


@pytest.fixture
def scripted_tiles(tmp_path, scripted):
    """Make the scripted engine's model one of up to 12 tiles of 4 tokens, and a thumbnail."""
    from edge_vlm_ros.models import find_model

    folder = tmp_path / 'tiling'
    shutil.copytree(find_model('scripted').tokenizer_folder, folder)
    config = json.loads((folder / 'config.json').read_text())
    config.update(dynamic_image_size=True, max_dynamic_patch=12, use_thumbnail=True)
    (folder / 'config.json').write_text(json.dumps(config))

    def spec(max_tiles=0, **limits):
        found = scripted(
            limits=limits,
            tokenizer=str(folder),
            latency={'prefill_call_s': 1e-6},
            answers=[{'answer': 'Fine.'}],
        )
        return replace(found, options={'max_tiles': max_tiles} if max_tiles else {})

    return spec


def long_frame():
    """One that is cut into as many tiles as there may be."""
    return frame_of(800, 8, 1)


TEXT_TOKENS = 27
"""Of a prompt that shows one frame and asks 'What?', its placeholders not counted."""


@pytest.mark.parametrize(
    ('limits', 'tiles'),
    [
        ({}, 13),
        ({'tiles_per_frame': 20}, 13),
        ({'tiles_per_frame': 3}, 4),
        ({'tiles_per_frame': 1}, 1),
        ({'max_images': 7}, 7),
        ({'max_images': 1}, 1),
        ({'max_images': 2}, 1),  # two tiles would make three images
        ({'max_images': 5, 'tiles_per_frame': 6}, 5),
        ({'longest_prompt': TEXT_TOKENS + 64 + 4 * 9}, 9),
        ({'longest_prompt': TEXT_TOKENS + 64 + 4 * 9 - 1}, 8),
        ({'context_tokens': TEXT_TOKENS + 128 + 4 * 9}, 9),
        ({'context_tokens': 80}, 1),
    ],
)
def test_a_frame_is_cut_into_no_more_tiles_than_the_engine_bears(scripted_tiles, limits, tiles):
    with VlmPipeline.open(scripted_tiles(**limits)) as pipeline:
        answer = pipeline.ask(Question('What?', frames=(long_frame(),), sampling=SHORT)).answer(60)
    assert answer.success, answer.message
    assert answer.timings.vision_tokens == 4 * tiles
    assert answer.timings.prompt_tokens == TEXT_TOKENS + 4 * tiles


@pytest.mark.parametrize(
    ('limits', 'max_tiles', 'tiles'),
    [
        ({'tiles_per_frame': 3}, 6, 7),
        ({'max_images': 7}, 6, 7),
        ({'max_images': 7}, 4, 5),
        ({'longest_prompt': TEXT_TOKENS + 4 * 7}, 6, 7),
        ({'tiles_per_frame': 3}, 40, 13),
    ],
)
def test_whoever_asks_for_more_tiles_gets_them_where_they_fit(
    scripted_tiles, limits, max_tiles, tiles
):
    with VlmPipeline.open(scripted_tiles(max_tiles, **limits)) as pipeline:
        assert vision_tokens(pipeline, long_frame()) == 4 * tiles


def test_tiles_count_against_the_images_that_the_engine_takes(scripted_tiles):
    with VlmPipeline.open(scripted_tiles(max_images=5)) as pipeline:
        first = Question('What?', session_id='s', frames=(long_frame(),), sampling=SHORT)
        assert pipeline.ask(first).answer(60).timings.vision_tokens == 4 * 5
        second = Question('And now?', session_id='s', frames=(wide_frame(2),), sampling=SHORT)
        answer = pipeline.ask(second).answer(60)
        assert 'the oldest 1 of 1 turns of this conversation were forgotten' in answer.message
        assert len(answer.frames) == 1
        # Of the images of a request none is left out.
        nobodys = [replace(one, source=FrameSource('')) for one in (long_frame(), wide_frame(2))]
        both = Question('What?', frames=tuple(nobodys), shown_as=ShownAs.ALONE, sampling=SHORT)
        answer = pipeline.ask(both).answer(60)
    assert answer.error_code is ErrorCode.TOO_MANY_FRAMES
    assert '2 frames make 8 images, each tile counted,' in answer.message
    assert 'takes 5' in answer.message


@pytest.mark.parametrize(
    ('limits', 'words'),
    [
        ({'max_images': 6}, ['7 images', 'takes 6 images', 'at most max_tiles 5']),
        (
            {'longest_prompt': TEXT_TOKENS + 4 * 7 - 1},
            [f'{TEXT_TOKENS + 28} tokens', f'{TEXT_TOKENS + 27} tokens', 'at most max_tiles 5'],
        ),
    ],
)
def test_more_tiles_than_the_engine_takes_are_refused_when_it_is_loaded(
    scripted_tiles, limits, words
):
    with pytest.raises(BadRequestError) as raised:
        VlmPipeline.open(scripted_tiles(6, **limits))
    assert raised.value.code is ErrorCode.UNSUPPORTED_OPTION
    assert all(word in raised.value.message for word in ['max_tiles 6', *words])


@pytest.mark.parametrize('name', ['min_pixels', 'resized_width', 'hurry', 'max_tile'])
def test_an_option_of_neither_family_nor_engine_is_refused_with_those_of_both(tmp_path, name):
    with pytest.raises(BadRequestError) as raised:
        VlmPipeline.open(tiling_spec(tmp_path, **{name: 5}))
    assert raised.value.code is ErrorCode.UNSUPPORTED_OPTION
    assert raised.value.message == (
        f"there is no option '{name}' here: family internvl takes max_tiles, resize; "
        'chip cpu takes threads, prefill_chunk, context_tokens, kv_slots'
    )
