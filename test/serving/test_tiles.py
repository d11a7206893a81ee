"""A family that tiles gives a frame alone many tiles, and each frame of a clip one."""

from __future__ import annotations

import json

import numpy as np

from edge_vlm_ros.core import FrameSource, Question, RawImage, StoredFrame
from edge_vlm_ros.serving import ModelSpec, VlmPipeline


def wide_frame(stamp_ns):
    pixels = np.random.default_rng(stamp_ns).integers(0, 255, (40, 80, 3), np.uint8)
    image = RawImage('rgb8', 80, 40, 240, pixels.tobytes())
    return StoredFrame(FrameSource('front', '/image', 'optical'), stamp_ns, image, stamp_ns)


def tiling_spec(tmp_path, **options):
    from tools.tiny_model.make import make_tiny_model

    folder = make_tiny_model(tmp_path)
    config = json.loads((folder / 'config.json').read_text())
    config.update(dynamic_image_size=True, max_dynamic_patch=4, use_thumbnail=True)
    (folder / 'config.json').write_text(json.dumps(config))
    return ModelSpec('cpu', str(folder), options={'threads': 1, **options})


def vision_tokens(pipeline, *frames):
    answer = pipeline.ask(Question('What?', frames=frames)).answer(60)
    assert answer.success, answer.message
    return answer.timings.vision_tokens


def test_the_same_frame_alone_and_in_a_clip_has_other_tiles(tmp_path):
    with VlmPipeline.open(tiling_spec(tmp_path)) as pipeline:
        one, two = wide_frame(1), wide_frame(2)
        alone = vision_tokens(pipeline, one)
        assert alone >= 3 * vision_tokens(pipeline, one, two) / 2
        assert vision_tokens(pipeline, one) == alone


def test_the_number_of_tiles_may_be_bounded_by_an_option(tmp_path):
    with VlmPipeline.open(tiling_spec(tmp_path, max_tiles=1, resize='fast')) as pipeline:
        one, two = wide_frame(1), wide_frame(2)
        assert 2 * vision_tokens(pipeline, one) == vision_tokens(pipeline, one, two)
