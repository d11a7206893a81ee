"""What every family promises to an engine, whatever it is."""

import numpy as np
import pytest
from support.families import limits, load_family

from edge_vlm_ros.core import (
    Frame,
    FrameSource,
    ModelConfig,
    ModelFileError,
    ShownAs,
    known_model_types,
)
from edge_vlm_ros.families import read_family

BOUNDS = {'context_tokens': 2048, 'longest_prompt': 1024}


@pytest.fixture(params=['internvl', 'qwen2_vl', 'mllama'])
def family(request):
    folders = {'internvl': 'model_folder', 'qwen2_vl': 'qwen2_vl_folder'}
    make = request.getfixturevalue(folders.get(request.param, 'mllama_folder'))
    return load_family(make(), limits(**BOUNDS))


def frame(side=300):
    return Frame(np.zeros((side, side, 3), np.uint8), 0, FrameSource('front'))


def test_the_types_of_models_that_are_known():
    idefics3, internvl = ('idefics3', 'smolvlm'), ('internvl', 'internvl_chat')
    assert known_model_types() == tuple(
        sorted((*idefics3, *internvl, 'mllama', 'qwen2_5_vl', 'qwen2_vl', 'qwen3_vl'))
    )


def test_pixels_are_what_engines_take_as_they_are(family):
    clip = family.preprocess_clip([frame()] * family.frames_per_input)
    for inputs in (
        family.preprocess(frame()),
        family.preprocess(frame(), ShownAs.AMONG_OTHERS),
        clip,
    ):
        assert inputs.pixels.dtype == np.float32
        assert inputs.pixels.flags.c_contiguous


def test_placeholders_are_feature_rows_and_cross_attended_images_are_one_token(family):
    shown = [family.preprocess(frame(side), ShownAs.AMONG_OTHERS) for side in (50, 300)]
    part = family.render_prefix(shown, '')
    assert [len(span) for span in part.spans] == [inputs.tokens or 1 for inputs in shown]
    assert part.positions.shape[-1] == len(part.tokens)


def test_a_frame_alone_in_a_clip_is_a_clip(family):
    several = family.preprocess(frame(400), ShownAs.AMONG_OTHERS)
    clip = family.preprocess_clip([frame(400)])
    assert clip.grid == several.grid
    np.testing.assert_array_equal(clip.pixels, several.pixels)


def test_an_engine_for_tiles_of_another_size_is_fitted(model_folder):
    """A vision tower may be compiled for smaller tiles than config.json says: 364 px, not 448."""
    settings = read_family(ModelConfig(model_folder(force_image_size=448)))
    family = settings.bound_by(limits(**BOUNDS, tile_px=448))
    assert family.preprocess(frame(), ShownAs.AMONG_OTHERS).tokens == 256
    family = settings.bound_by(limits(**BOUNDS, tile_px=364))
    inputs = family.preprocess(frame(), ShownAs.AMONG_OTHERS)
    assert inputs.pixels.shape == (1, 3, 364, 364)
    assert inputs.tokens == 13 * 13
    assert len(family.render_prefix([inputs], '').spans[0]) == 169


@pytest.mark.parametrize('tile_px', [450, 350])  # no whole patches; 25 of them, an odd number
def test_an_engine_for_tiles_that_patches_do_not_fill_is_refused(model_folder, tile_px):
    settings = read_family(ModelConfig(model_folder()))
    with pytest.raises(ModelFileError, match=f'tiles of 112 px, the vision tower takes {tile_px}'):
        settings.bound_by(limits(**BOUNDS, tile_px=tile_px))
    family = settings.bound_by(limits(**BOUNDS, tile_px=112))
    assert family.preprocess(frame(), ShownAs.AMONG_OTHERS).pixels.shape == (1, 3, 112, 112)
