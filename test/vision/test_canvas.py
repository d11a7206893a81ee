"""Llama 3.2 Vision's canvases: the grid that shrinks least, and the ids it goes by."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.vision import aspect_ratio_id, aspect_ratio_mask, choose_canvas

SIDES = st.integers(1, 4000)


def test_ids_are_those_of_the_published_config():
    # supported_aspect_ratios of meta-llama/Llama-3.2-11B-Vision-Instruct, config.json
    published = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
    assert [aspect_ratio_id(rows, columns, 4) for rows, columns in published] == [*range(1, 9)]


def test_masks_tell_tiles_from_padding():
    assert aspect_ratio_mask(1, 3, 4).tolist() == [1, 1, 1, 0]
    assert aspect_ratio_mask(2, 2, 4).tolist() == [1, 1, 1, 1]


def test_a_grid_of_too_many_tiles_has_no_id():
    with pytest.raises(BadImageError, match='3 rows of 2 tiles'):
        aspect_ratio_id(3, 2, 4)


@given(width=SIDES, height=SIDES, most=st.integers(1, 6))
def test_an_image_lies_within_its_canvas_and_touches_a_side_of_it_or_of_a_tile(
    width, height, most
):
    canvas = choose_canvas(width, height, 560, most)
    assert 1 <= canvas.rows * canvas.columns <= most
    assert 1 <= canvas.width_px <= canvas.columns * 560
    assert 1 <= canvas.height_px <= canvas.rows * 560
    fills = canvas.width_px == canvas.columns * 560 or canvas.height_px == canvas.rows * 560
    assert fills or 560 in {canvas.width_px, canvas.height_px} or canvas.width_px == width


@given(width=SIDES, height=SIDES)
def test_no_other_canvas_shrinks_the_image_less(width, height):
    def scale(rows, columns):
        return min(rows * 560 / height, columns * 560 / width)

    chosen = choose_canvas(width, height, 560, 4)
    others = [scale(r, c) for r in range(1, 5) for c in range(1, 5) if r * c <= 4]
    best = scale(chosen.rows, chosen.columns)
    assert best == (max(others) if max(others) < 1 else min(s for s in others if s >= 1))


def test_an_image_without_pixels_is_refused():
    with pytest.raises(BadImageError):
        choose_canvas(0, 7, 560, 4)


def test_engines_may_ask_for_ids_without_opencv():
    code = """
import sys
from edge_vlm_ros.vision import aspect_ratio_id
assert 'cv2' not in sys.modules
"""
    subprocess.run([sys.executable, '-c', code], check=True)
