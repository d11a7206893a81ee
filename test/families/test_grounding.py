"""Boxes come back to the pixels of the frame, through tiles and patches.

A bright rectangle is painted into a frame. Where a model would see it is measured in what the
family makes of the frame: in the tiles, put together again, or in the patches. What the model then
writes is mapped back and must be the rectangle.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import load_family

from edge_vlm_ros.core import Frame, FrameSource
from edge_vlm_ros.vision import patch_places

a_few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sizes = st.tuples(st.integers(120, 900), st.integers(120, 900))
corners = st.tuples(*[st.floats(0.0, 0.6)] * 2, *[st.floats(0.2, 0.39)] * 2)


@pytest.fixture
def internvl(model_folder):
    return load_family(model_folder())


@pytest.fixture
def qwen(qwen2_vl_folder):
    return load_family(qwen2_vl_folder())


@pytest.fixture
def mllama(mllama_folder):
    return load_family(mllama_folder())


def painted(size, corner):
    """A dark frame with a bright rectangle; its left, upper, width and height in pixels."""
    width, height = size
    x, y = int(corner[0] * width), int(corner[1] * height)
    across, down = int(corner[2] * width), int(corner[3] * height)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + down, x : x + across] = 255
    return Frame(pixels, 0, FrameSource('front')), (x, y, across, down)


def bright_box(picture):
    """Left, upper, right and lower edge of what is bright, and the picture's sides."""
    mean = (picture.min() + picture.max()) / 2
    rows, columns = np.nonzero(picture > mean)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return edges, picture.shape[::-1]


def from_tiles(inputs):
    """Put the tiles of a grid together; the thumbnail, last, is left out."""
    _, rows, columns = inputs.grid
    tiles = inputs.pixels[: rows * columns, 0]
    side = tiles.shape[-1]
    grid = tiles.reshape(rows, columns, side, side)
    return grid.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)


def from_patches(inputs, patch_px=14, merge=2):
    """Put the patches of an image together: the first channel of the first of its two moments."""
    _, rows, columns = inputs.grid
    first = inputs.pixels.reshape(len(inputs.pixels), 3, 2, patch_px, patch_px)[:, 0, 0]
    picture = np.empty((rows * patch_px, columns * patch_px), np.float32)
    for (row, column), patch in zip(patch_places(rows, columns, merge), first, strict=True):
        top, left = row * patch_px, column * patch_px
        picture[top : top + patch_px, left : left + patch_px] = patch
    return picture


def thousandths(edges, sides):
    return [round(1000 * edge / sides[i % 2]) for i, edge in enumerate(edges)]


def near(detection, box, size):
    """Whether a place is the rectangle, within rounding to the model's unit and its pixels."""
    found = (detection.x, detection.y, detection.width, detection.height)
    slack = [4 + side / 60 for side in size] * 2
    return all(abs(a - b) <= most for a, b, most in zip(found, box, slack, strict=True))


@a_few
@given(size=sizes, corner=corners)
def test_a_box_comes_back_through_tiles(internvl, size, corner):
    frame, box = painted(size, corner)
    inputs = internvl.preprocess(frame)
    numbers = thousandths(*bright_box(from_tiles(inputs)))
    answer = f'<ref>lamp</ref><box>[{numbers}]</box>'
    found = internvl.grounding.detect(answer, inputs, size)
    assert found.dropped == 0
    assert [place.label for place in found.found] == ['lamp']
    assert near(found.found[0], box, size)


@a_few
@given(size=sizes, corner=corners)
def test_a_box_comes_back_through_patches(qwen, size, corner):
    frame, box = painted(size, corner)
    inputs = qwen.preprocess(frame)
    edges, sides = bright_box(from_patches(inputs))
    left, upper, right, lower = thousandths(edges, sides)
    answer = f'<|box_start|>({left},{upper}),({right},{lower})<|box_end|>'
    in_thousandths = qwen.grounding.detect(answer, inputs, size)
    assert near(in_thousandths.found[0], box, size)


@a_few
@given(size=sizes, corner=corners)
def test_a_box_in_pixels_of_the_frame_as_it_was_shown_comes_back(qwen2_5_vl_folder, size, corner):
    family = load_family(qwen2_5_vl_folder())
    frame, box = painted(size, corner)
    inputs = family.preprocess(frame)
    edges, _ = bright_box(from_patches(inputs))
    answer = f'```json\n[{{"bbox_2d": {list(map(int, edges))}, "label": "lamp"}}]\n```'
    found = family.grounding.detect(answer, inputs, size)
    assert [place.label for place in found.found] == ['lamp']
    assert near(found.found[0], box, size)


@pytest.fixture
def frame_of_1000(internvl):
    frame, _ = painted((1000, 1000), (0.1, 0.1, 0.2, 0.2))
    return internvl.preprocess(frame)


@pytest.mark.parametrize(
    'numbers',
    [
        [500, 100, 400, 200],  # turned round
        [100, 200, 300, 200],  # no height
        [-1, 0, 10, 10],
        [0, 0, 10, 1001],
        [1, 2, 3],
        [1, 2, 3, 4, 5, 6],
    ],
)
def test_a_box_that_cannot_be_is_dropped_and_counted(internvl, frame_of_1000, numbers):
    answer = f'<ref>a</ref><box>[{numbers}, [0, 0, 1000, 1000]]</box>'
    found = internvl.grounding.detect(answer, frame_of_1000, (640, 480))
    assert found.dropped == 1
    (whole,) = found.found
    assert (whole.x, whole.y, whole.width, whole.height) == (0, 0, 640, 480)


def test_a_box_of_qwen3_vl_is_in_thousandths_and_json(qwen3_vl_folder):
    family = load_family(qwen3_vl_folder())
    frame, _ = painted((800, 600), (0.1, 0.1, 0.2, 0.2))
    answer = '{"bbox_2d": [100, 200, 300, 600], "label": "cup"}'
    (found,) = family.grounding.detect(answer, family.preprocess(frame), (800, 600)).found
    assert found.label == 'cup'
    assert (found.x, found.y, found.width, found.height) == (80, 120, 160, 240)


def test_a_point_has_no_size(qwen):
    frame, _ = painted((560, 560), (0.1, 0.1, 0.2, 0.2))
    inputs = qwen.preprocess(frame)
    found = qwen.grounding.detect('<|box_start|>(500,250)<|box_end|>', inputs, (800, 600))
    (point,) = found.found
    assert (point.x, point.y, point.width, point.height) == (400, 150, 0, 0)


def test_families_that_were_not_trained_to_name_places_say_so(mllama):
    assert mllama.grounding is None
