"""The float reference of the emulator's tests computes what the published model computes."""

import numpy as np
import pytest
from support.sophgo.fixtures import FIXTURES
from support.sophgo.reference import Decoder, qwen2_5vl_vision

from edge_vlm_ros.engines.sophgo.masks import patch_positions

pytestmark = [pytest.mark.reference, pytest.mark.timeout(300)]

NAME = 'qwen2_5vl_static_bf16_bm1684x'


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
