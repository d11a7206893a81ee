"""Qwen2-VL on the CPU, in the layout of its public export; the float reference's answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.engine_laws import broken_laws
from support.reference.golden_cases import picture
from support.reuse_laws import FamilyPrompts, Watcher, wrong_answers
from support.tiny_model.prompts import decode_greedily, prefill_in_cuts

from edge_vlm_ros.core import (
    EdgeVlmError,
    Frame,
    FrameSource,
    ModelConfig,
    ModelFileError,
    ShownAs,
    VisionInputs,
    join_parts,
)
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.cpu.pace import PatchPace
from edge_vlm_ros.families import read_family
from edge_vlm_ros.models import find_model

TOKENS = 24
SYSTEM = '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n'
END = '<|im_end|>\n<|im_start|>assistant\n'
IMAGE = '<|vision_start|><|image_pad|><|vision_end|>'
VIDEO = '<|vision_start|><|video_pad|><|vision_end|>'
QUESTION = 'What do you see?'
SHADE = 1 / 255 / 0.26


def open_folder(folder, **options):
    return open_engine('cpu', find_model('cpu', str(folder)), options={'threads': 1, **options})


def family_of(folder, engine, **options):
    return read_family(ModelConfig(folder), options).bound_by(engine.limits)


@pytest.fixture(scope='session')
def qwen_folder(tmp_path_factory):
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.qwen2_vl import make_tiny_qwen2_vl

    return make_tiny_qwen2_vl(tmp_path_factory.mktemp('qwen'))


@pytest.fixture
def broken(qwen_folder, tmp_path):
    """Give a copy, to be spoiled."""
    return shutil.copytree(qwen_folder, tmp_path / 'broken')


@pytest.fixture(scope='module')
def engine(qwen_folder):
    opened = open_folder(qwen_folder)
    yield opened
    opened.close()


@pytest.fixture(scope='module')
def family(qwen_folder, engine):
    return family_of(qwen_folder, engine)


def frame(width, height, seed=0, camera='front'):
    return Frame(picture(width, height, seed), seed, FrameSource(camera))


def ask(engine, family, images, cuts=()):
    """Ask about images: the prompt, the tokens, their scores."""
    prefix = family.render_prefix(images, '')
    part = join_parts([prefix, family.render_suffix(QUESTION, prefix.next_position)])
    features = {number: engine.encode(image) for number, image in enumerate(images)}
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part, features, cuts)
    return part, *decode_greedily(engine, part.next_position, TOKENS)


# --- against the float reference -----------------------------------------------------------------

SHOWN = {
    'square': [(56, 56)],
    'wide': [(320, 180)],
    'tall': [(180, 320)],
    'to be shrunk': [(1280, 720)],
    'to be enlarged': [(20, 15)],
    'two': [(320, 180), (56, 112)],
    'five': [(64, 48), (90, 60), (48, 64), (56, 56), (64, 48)],
}


@pytest.fixture(scope='module')
def reference(qwen_folder, family):
    pytest.importorskip('torch')
    from support.reference.qwen2_vl import Qwen2VlReference
    from support.tiny_model.qwen2_vl import TinyQwen2Vl, make_weights

    def make(shown_as):
        sizes = family.settings.sizes
        most = (sizes.alone if shown_as is ShownAs.ALONE else sizes.several).max_pixels
        return Qwen2VlReference(qwen_folder, make_weights(TinyQwen2Vl()), most)

    return make


def check_against(reference, ids, shown, asked, rows):
    part, tokens, scores = asked
    assert part.tokens.tolist() == ids.tolist()
    np.testing.assert_array_equal(part.positions, reference.positions(ids, shown))
    np.testing.assert_allclose(rows, reference.features(shown), atol=1e-4)
    # One pass of the reference over prompt and answer scores every step of the answer.
    whole = np.concatenate([ids, tokens[:-1]])
    expected = reference.logits(whole, shown)[len(ids) - 1 :]
    assert tokens == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert len(set(tokens)) > TOKENS // 4, 'a model that says one thing shows nothing'


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize('case', SHOWN)
def test_images_are_answered_as_the_published_processor_and_model_do(
    engine, family, reference, case
):
    torch = pytest.importorskip('torch')
    sizes = SHOWN[case]
    shown_as = ShownAs.ALONE if len(sizes) == 1 else ShownAs.AMONG_OTHERS
    frames = [frame(*size, seed) for seed, size in enumerate(sizes)]
    images = [family.preprocess(each, shown_as) for each in frames]
    published = reference(shown_as)
    text = f'{SYSTEM}{IMAGE * len(sizes)}{QUESTION}{END}'
    ids, shown = published.images(text, [each.pixels for each in frames])
    assert [list(image.grid) for image in images] == shown['image_grid_thw'].tolist()
    pixels = np.concatenate([image.pixels for image in images])
    # Pillow 13 chooses the order of its passes, which may be a shade off; the golden pixels of
    # the families' tests are of the order that the model was trained with, and are met bit by bit.
    np.testing.assert_allclose(pixels, shown['pixel_values'].numpy(), atol=3 * SHADE)
    shown['pixel_values'] = torch.from_numpy(pixels)
    rows = np.concatenate([engine.encode(image).rows for image in images])
    check_against(published, ids, shown, ask(engine, family, images), rows)


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize('pairs', [1, 2, 4])
def test_a_clip_in_pairs_is_answered_as_the_published_model_does(engine, family, reference, pairs):
    step = family.frames_per_input
    frames = [frame(224, 168, seed) for seed in range(pairs * step)]
    images = [family.preprocess_clip(frames[at : at + step]) for at in range(0, len(frames), step)]
    assert [image.grid[0] for image in images] == [1] * pairs
    published = reference(ShownAs.ALONE)
    pixels = np.concatenate([image.pixels for image in images])
    text = f'{SYSTEM}{VIDEO}{QUESTION}{END}'
    ids, shown = published.clip(text, pixels, (pairs, *images[0].grid[1:]))
    rows = np.concatenate([engine.encode(image).rows for image in images])
    check_against(published, ids, shown, ask(engine, family, images), rows)


# --- prefix ahead, cuts, what comes how ----------------------------------------------------------


def clip_of(family, count):
    step = family.frames_per_input
    frames = [frame(224, 168, seed) for seed in range(count)]
    return [family.preprocess_clip(frames[at : at + step]) for at in range(0, count, step)]


@pytest.mark.parametrize('seed', range(4))
def test_a_prompt_ahead_and_at_once_give_the_same_tokens(engine, family, seed):
    images = [family.preprocess(frame(64, 48), ShownAs.AMONG_OTHERS), *clip_of(family, 5)]
    part, tokens, scores = ask(engine, family, images)
    cuts = np.random.default_rng(seed).integers(1, len(part), 5)
    again, found, found_scores = ask(engine, family, images, cuts)
    assert len(again) == len(part)
    assert found == tokens
    np.testing.assert_allclose(found_scores, scores, atol=1e-4)


def test_a_clip_that_grows_by_a_pair_goes_on_from_what_was_there(engine, family):
    """All but the token that closes the video is kept."""
    shorter, longer = clip_of(family, 4), clip_of(family, 6)
    _, tokens, scores = ask(engine, family, longer)
    ahead = family.render_prefix(shorter, '')
    prefix = family.render_prefix(longer, '')
    whole = join_parts([prefix, family.render_suffix(QUESTION, prefix.next_position)])
    features = {number: engine.encode(image) for number, image in enumerate(longer)}
    engine.kv.truncate(0)
    prefill_in_cuts(engine, ahead, features)
    kept = len(ahead) - 1
    assert whole.tokens[:kept].tolist() == ahead.tokens[:kept].tolist()
    engine.kv.truncate(kept)
    prefill_in_cuts(engine, whole.slice(kept, len(whole)), features)
    found, found_scores = decode_greedily(engine, whole.next_position, TOKENS)
    assert found == tokens
    np.testing.assert_allclose(found_scores, scores, atol=1e-4)


def test_pairs_are_encoded_each_by_itself(engine, family):
    """The graph lets all patches that it is fed attend to each other: it never gets two pairs."""
    pairs = clip_of(family, 4)
    pixels = np.concatenate([pair.pixels for pair in pairs])
    tokens = sum(pair.tokens for pair in pairs)
    joined = VisionInputs(pixels, (2, *pairs[0].grid[1:]), tokens)
    singly = np.concatenate([engine.encode(pair).rows for pair in pairs])
    np.testing.assert_array_equal(engine.encode(joined).rows, singly)


def test_all_three_rows_of_positions_count(engine, family):
    image = family.preprocess(frame(320, 180))
    part, _, scores = ask(engine, family, [image])
    features = {0: engine.encode(image)}
    for row in range(3):
        flat = part.positions.copy()
        flat[row] = np.arange(len(part))
        engine.kv.truncate(0)
        other = type(part)(part.tokens, flat, part.next_position, part.spans)
        prefill_in_cuts(engine, other, features)
        _, changed = decode_greedily(engine, part.next_position, 1)
        assert np.abs(changed[0] - scores[0]).max() > 1e-3, f'row {row}'


# --- the default that bounds an image ------------------------------------------------------------


def test_an_image_has_a_bearable_number_of_patches_unless_more_are_asked_for(
    qwen_folder, engine, family
):
    wide = frame(1920, 1080)
    most = engine.limits.patches_per_frame
    assert most in {256, 512, 1024}
    assert most / 2 < len(family.preprocess(wide).pixels) <= most
    assert len(family.preprocess(wide, ShownAs.AMONG_OTHERS).pixels) <= most / 4
    assert family.frames_per_input == 2, 'nothing is gained by several pairs at once'
    more = family_of(qwen_folder, engine, max_pixels=1500 * 14 * 14)
    assert 1024 < len(more.preprocess(wide).pixels) <= 1500
    fixed = family_of(qwen_folder, engine, resized_width=56 * 14, resized_height=40 * 14)
    assert fixed.preprocess(wide).grid == (1, 40, 56)


@pytest.mark.parametrize(
    ('patch_ms', 'token_ms', 'most'),
    [(0.001, 0.001, 1024), (3.7, 0.1, 1024), (3.7, 2, 512), (7.5, 8, 256), (1000, 1000, 256)],
)
def test_the_bound_follows_from_what_the_machine_takes(patch_ms, token_ms, most):
    pace = PatchPace(patch_ms / 1000, token_ms / 1000, 4)
    assert pace.patches_per_frame == most
    assert most == 256 or pace.first_word_s(most) <= 4


def test_the_log_says_how_large_an_image_is_and_what_raises_it(qwen_folder, caplog):
    with caplog.at_level('INFO'):
        opened = open_folder(qwen_folder)
    most = opened.limits.patches_per_frame
    opened.close()
    assert f'at most {most} patches ({most // 4} tokens) for an image alone' in caplog.text
    assert 'unless option max_pixels asks for more, the first word after about' in caplog.text


def test_where_there_are_many_cores_its_threads_are_measured(qwen_folder, monkeypatch, caplog):
    from edge_vlm_ros.engines.cpu import engine as module

    monkeypatch.setattr(module, 'usable_cores', lambda: 8)
    with caplog.at_level('INFO'):
        open_folder(qwen_folder, threads=0).close()
    assert ': 4 threads' in caplog.text or ': 8 threads' in caplog.text


# --- the layouts that there are, and files that do not fit ---------------------------------------


@pytest.fixture
def make_model(tmp_path):
    """Write a tiny model with other sizes."""
    from support.tiny_model.config import TinyConfig
    from support.tiny_model.qwen2_vl import TinyQwen2Vl, make_tiny_qwen2_vl

    def make(language=None, **sizes):
        if language is not None:
            usual = {'hidden': 64, 'mlp': 128, 'mrope': True, 'keeps_logits': False}
            sizes['language'] = TinyConfig(**{**usual, **language})
        return make_tiny_qwen2_vl(tmp_path / 'other', TinyQwen2Vl(**sizes))

    return make


@pytest.mark.parametrize(
    'sizes',
    [
        {'grid_name': 'image_grid_thw'},
        {'language': {'keeps_logits': True, 'context_tokens': 2048}},
    ],
    ids=['a newer name', 'num_logits_to_keep'],
)
def test_newer_exports_answer_alike(engine, family, make_model, sizes):
    image = family.preprocess(frame(320, 180))
    _, tokens, _ = ask(engine, family, [image])
    newer = open_folder(make_model(**sizes))
    _, found, _ = ask(newer, family, [image])
    newer.close()
    assert found == tokens


def test_pixels_that_are_no_patches_of_their_grid_are_refused(engine):
    wrong = [
        (np.zeros((16, 1176), np.float32), (1, 4, 3)),
        (np.zeros((9, 1176), np.float32), (1, 3, 3)),
        (np.zeros((16, 588), np.float32), (1, 4, 4)),
        (np.zeros((1, 3, 56, 56), np.float32), (1, 1, 1)),
        (np.zeros((0, 1176), np.float32), (0, 4, 4)),
    ]
    for pixels, grid in wrong:
        with pytest.raises(EdgeVlmError, match='expected \\(patches, 1176\\), rows and columns'):
            engine.encode(VisionInputs(pixels, grid, 4))


def test_a_decoder_with_one_row_of_positions_is_refused(make_model):
    with pytest.raises(ModelFileError, match=r'position_ids: expected three rows'):
        open_folder(make_model(language={'mrope': False}))


@pytest.mark.parametrize('part', ['vision_encoder', 'embed_tokens', 'decoder_model_merged'])
def test_a_file_of_another_width_is_refused(broken, make_model, part):
    other = make_model(language={'hidden': 32})
    shutil.copy(other / 'onnx' / f'{part}.onnx', broken / 'onnx' / f'{part}.onnx')
    with pytest.raises(ModelFileError, match=f'{part}.onnx: .*expected width 64.*found 32'):
        open_folder(broken)


def test_patches_of_another_size_than_config_says_are_refused(broken):
    path = broken / 'config.json'
    config = json.loads(path.read_text())
    config['vision_config']['patch_size'] = 16
    path.write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=r'pixel_values: expected 1536 values.*found 1176'):
        open_folder(broken)


@pytest.mark.parametrize(
    ('kind', 'attributes', 'message'),
    [
        ('ReduceMean', {'keepdims': 0}, r'image_features: expected rows of features, found \[\]'),
        ('ReduceMean', {'axes': [1], 'keepdims': 0}, r'image_features: expected rows'),
        ('Tile', {}, r'image_features: expected 1 row of a block, found 3'),
    ],
)
def test_a_tower_that_gives_something_else_than_rows_is_refused(broken, kind, attributes, message):
    import onnx
    from onnx import helper, numpy_helper

    path = broken / 'onnx' / 'vision_encoder.onnx'
    model = onnx.load(path)
    last = model.graph.node[-1]
    inputs = ['rows', 'times'] if kind == 'Tile' else ['rows']
    last.output[0] = 'rows'
    model.graph.node.append(helper.make_node(kind, inputs, ['image_features'], **attributes))
    times = numpy_helper.from_array(np.array([3, 1]), 'times')
    model.graph.initializer.append(times)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField('shape')
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=message):
        open_folder(broken)


def test_a_tower_of_patches_in_a_folder_of_another_family_is_refused(tiny_folder, broken):
    shutil.copy(tiny_folder / 'config.json', broken / 'config.json')
    with pytest.raises(ModelFileError, match=r'config.json: .*spatial_merge_size'):
        open_folder(broken)


def test_a_tower_of_tiles_in_a_folder_of_this_family_is_refused(tiny_folder, broken):
    """The engine takes it for what it is; the family does not."""
    for part in ('vision_encoder', 'embed_tokens', 'decoder_model_merged'):
        shutil.copy(tiny_folder / 'onnx' / f'{part}.onnx', broken / 'onnx' / f'{part}.onnx')
    path = broken / 'config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, 'hidden_size': 32}))
    opened = open_folder(broken)
    with pytest.raises(ModelFileError, match=r'takes tiles of 56 px: .*not of one model'):
        family_of(broken, opened)
    opened.close()


# --- variants ------------------------------------------------------------------------------------


def cosine(one, other):
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


# How near scores come to those of float32: rounding to 8 and 4 bits of a model of 64 numbers.
VARIANTS = {
    'fp16': 0.9999, 'int8': 0.99, 'uint8': 0.99, 'quantized': 0.99, 'q4': 0.9, 'q4f16': 0.9,
    'bnb4': 0.9,
}  # fmt: skip


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_of_the_files_is_run(qwen_folder, engine, family, tmp_path, variant):
    from support.tiny_smolvlm.variants import make_variant

    image = family.preprocess(frame(320, 180))
    _, tokens, scores = ask(engine, family, [image])
    opened = open_folder(make_variant(qwen_folder, variant, tmp_path / variant))
    half = 'f16' in variant or variant == 'fp16'
    assert opened.limits.hidden_dtype == ('float16' if half else 'float32')
    rows, expected = opened.encode(image).rows, engine.encode(image).rows
    assert cosine(rows, expected) > VARIANTS[variant]
    _, found, found_scores = ask(opened, family, [image])
    opened.close()
    assert cosine(found_scores[0], scores[0]) > VARIANTS[variant]
    if variant == 'fp16':
        assert found == tokens
    best = scores[0].max()
    assert best - scores[0][found[0]] < np.ptp(scores[0]) / 20, 'the best token, or nearly so'


def test_a_fetched_variant_is_found_by_the_catalogues_name(qwen_folder, family, tmp_path):
    """In the folder that `edge-vlm models fetch` writes."""
    from support.tiny_smolvlm.variants import make_variant

    folder = make_variant(qwen_folder, 'int8', tmp_path / 'cpu' / 'qwen2-vl-2b')
    opened = open_engine('cpu', find_model('cpu', 'qwen2-vl-2b', [tmp_path]))
    found = ask(opened, family, [family.preprocess(frame(320, 180))])[1]
    opened.close()
    assert len(found) == TOKENS
    (folder / 'onnx' / 'vision_encoder_int8.onnx').unlink()
    with pytest.raises(ModelFileError, match=r'missing onnx/vision_encoder_int8.onnx(.|\n)*fetch'):
        find_model('cpu', 'qwen2-vl-2b', [tmp_path])


@pytest.mark.parametrize('number', range(3))
def test_weights_may_lie_beside_the_graphs_and_are_missed_by_name(broken, engine, family, number):
    from support.tiny_smolvlm.variants import put_weights_beside

    image = family.preprocess(frame(320, 180))
    beside = put_weights_beside(broken)
    opened = open_folder(broken)
    assert ask(opened, family, [image])[1] == ask(engine, family, [image])[1]
    opened.close()
    beside[number].unlink()
    with pytest.raises(ModelFileError, match=beside[number].name):
        open_folder(broken)


# --- laws ----------------------------------------------------------------------------------------


def test_the_engine_keeps_the_laws_with_these_graphs(qwen_folder):
    """But for those about tiles: what is no patches is refused in other words, above."""
    opened = open_folder(qwen_folder, context_tokens=48)
    tiles = {'pixels of another size', 'another number of rows', 'three rows of positions'}
    assert broken_laws(opened, rows=4, except_for=frozenset(tiles)) == []


def test_another_number_of_rows_is_refused(engine, family):
    image = family.preprocess(frame(56, 56))
    with pytest.raises(EdgeVlmError, match='gave 4 rows, the prompt has room for 5'):
        engine.encode(replace(image, tokens=5))


@pytest.mark.parametrize('shown', [ShownAs.AMONG_OTHERS, ShownAs.VIDEO])
@pytest.mark.parametrize('seed', range(2))
def test_answers_are_those_from_an_empty_cache(qwen_folder, shown, seed):
    """Watched ahead, asked about, cut, given up, in slots by turns; images and pairs of a clip."""
    opened = open_folder(qwen_folder, prefill_chunk=24, context_tokens=400)
    family = family_of(qwen_folder, opened, clip_pixels=56 * 56, min_pixels=28 * 28)

    def scene(number):
        """Frames in pairs that differ in one block of pixels."""
        pixels = picture(56, 56, seed + number // 2)
        if number % 2:
            pixels[:14, :14] = 255 - pixels[:14, :14]
        shot = Frame(pixels, number, FrameSource('front'))
        if shown is ShownAs.VIDEO:
            return family.preprocess_clip([shot, shot])
        return family.preprocess(shot, shown)

    asked = Watcher(opened, FamilyPrompts(family), scene, seed).run(30)
    wrong = wrong_answers(
        opened, asked, lambda told, expected: np.allclose(told, expected, atol=1e-3)
    )
    opened.close()
    assert wrong == []
    assert any(one.reused for one in asked)
