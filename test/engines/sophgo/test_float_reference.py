"""The float reference of the emulator's tests computes what the published model computes."""

import numpy as np
import pytest
from support.sophgo.fixtures import FIXTURES
from support.sophgo.reference import Decoder, qwen2_5vl_vision, qwen3vl_vision

from edge_vlm_ros.engines.sophgo.masks import patch_positions

pytestmark = [pytest.mark.reference, pytest.mark.timeout(300)]

NAME = 'qwen2_5vl_static_bf16_bm1684x'
QWEN3 = 'qwen3vl_static_bf16_bm1684x'


@pytest.fixture(scope='module')
def published():
    """The published class with the fixture's weights."""
    torch = pytest.importorskip('torch')
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    fixture = FIXTURES[NAME]
    config = Qwen2_5_VLConfig(**fixture.load_config())
    config._attn_implementation = 'eager'
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    weights = {
        name.replace('visual.', 'model.visual.')
        if name.startswith('visual.')
        else name.replace('model.', 'model.language_model.', 1): torch.from_numpy(values)
        for name, values in fixture.load_weights().items()
    }
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.mark.parametrize('grid', [(1, 4, 12), (1, 2, 10), (2, 2, 10), (1, 10, 18), (3, 8, 8)])
def test_rows_of_the_vision_tower(published, grid):
    torch = pytest.importorskip('torch')
    fixture, (moments, rows, columns) = FIXTURES[NAME], grid
    patches = np.random.default_rng(4).standard_normal((moments * rows * columns, 1176))
    patches = patches.astype(np.float32)
    places = patch_positions(moments, rows, columns)
    groups = [rows * columns] * moments
    found = qwen2_5vl_vision(
        fixture.load_config(), fixture.load_weights(), patches, places, groups
    )
    with torch.inference_mode():
        made = published.model.visual(torch.from_numpy(patches), torch.tensor([grid]))
    expected = made.pooler_output.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_scores_with_positions_on_three_axes(published):
    torch = pytest.importorskip('torch')
    fixture = FIXTURES[NAME]
    random = np.random.default_rng(6)
    decoder = Decoder(fixture.load_config(), fixture.load_weights())
    embeddings = decoder.embed(random.integers(20, 250, 24).tolist())
    positions = np.sort(random.integers(0, 40, (3, 24)), axis=1)
    with torch.inference_mode():
        made = published(
            inputs_embeds=torch.from_numpy(embeddings)[None],
            position_ids=torch.from_numpy(positions)[:, None],
            use_cache=False,
        )
    expected = made.logits[0].numpy()
    found = decoder.run(embeddings, positions).logits
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.fixture(scope='module')
def published_qwen3():
    """The published class of Qwen3-VL with the fixture's weights."""
    torch = pytest.importorskip('torch')
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    fixture = FIXTURES[QWEN3]
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**fixture.load_config())).float()
    weights = {name: torch.from_numpy(array) for name, array in fixture.load_weights().items()}
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.mark.parametrize('grid', [(4, 6), (2, 2), (8, 8)])
def test_features_of_qwen3_vl_are_added_where_the_published_class_adds_them(published_qwen3, grid):
    torch = pytest.importorskip('torch')
    fixture, (rows, columns) = FIXTURES[QWEN3], grid
    patches = np.random.default_rng(4).standard_normal((rows * columns, 1536)).astype(np.float32)
    config, weights = fixture.load_config(), fixture.load_weights()
    seen, deepstack = qwen3vl_vision(config, weights, patches, patch_positions(1, *grid))
    ids = [30, 31, config['vision_start_token_id'], *[config['image_token_id']] * len(seen), 40]
    mask, tokens = np.array(ids) == config['image_token_id'], torch.tensor([ids])
    shown = {
        'input_ids': tokens,
        'mm_token_type_ids': torch.from_numpy(mask)[None].int(),
        'image_grid_thw': torch.tensor([[1, *grid]]),
    }
    with torch.inference_mode():
        made = published_qwen3(**shown, pixel_values=torch.from_numpy(patches))
        positions, _ = published_qwen3.model.get_rope_index(*shown.values())
    decoder = Decoder(config, weights)
    levels = [decoder.embed(ids), *(np.zeros((len(ids), 128), np.float32) for _ in deepstack)]
    for level, found in zip(levels, [seen, *deepstack], strict=True):
        level[mask] = found
    trace = decoder.run(levels[0], positions[:, 0].numpy(), None, levels[1:])
    expected = made.logits[0].numpy()
    np.testing.assert_allclose(trace.logits, expected, atol=1e-4 * np.abs(expected).max())
