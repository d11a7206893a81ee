"""Qwen2-VL: prompts as its template renders them, positions as its model counts them, bounds."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import limits as any_limits
from support.families import load_family

from edge_vlm_ros.core import (
    BadImageError,
    BadRequestError,
    Frame,
    FrameSource,
    ModelFileError,
    ShownAs,
    VisionInputs,
    join_parts,
    text_part,
)
from edge_vlm_ros.families.qwen2_vl import Qwen2VlFamily
from edge_vlm_ros.families.qwen2_vl_sizes import Qwen2VlOptions

SYSTEM = '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'
START = '<|im_start|>user\n'
END = '<|im_end|>\n<|im_start|>assistant\n'
MARKUP = ('<|im_end|>', '<|vision_start|>', '<|image_pad|>', '<|video_pad|>', '<|vision_end|>')

WORDS = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=30)
PLAIN = st.one_of(WORDS, st.text('ab \n?红🤖e\u0301', min_size=1, max_size=20)).filter(
    lambda text: text.strip() and '<' not in text
)
HOSTILE = st.lists(st.one_of(st.sampled_from(MARKUP), WORDS), min_size=1, max_size=5).map(''.join)
GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 5))  # of blocks
# An image, or a video of up to four pairs.
SHOWN = st.lists(st.tuples(GRIDS, st.integers(0, 4)), max_size=4)

within_a_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def family(qwen2_vl_folder):
    return load_family(qwen2_vl_folder())


def image(rows, columns, clip='', pairs=1):
    pixels = np.zeros((0, 1176), np.float32)
    return VisionInputs(pixels, (pairs, 2 * rows, 2 * columns), pairs * rows * columns, clip)


def inputs_of(shown):
    """0 pairs = an image; every video is of another camera."""
    cameras = count()
    for grid, pairs in shown:
        camera = f'camera{next(cameras)}'
        yield from [image(*grid, camera) for _ in range(pairs)] if pairs else [image(*grid)]


def media(shown):
    return ''.join(
        '<|vision_start|>'
        + ('<|video_pad|>' if pairs else '<|image_pad|>') * (rows * columns * max(pairs, 1))
        + '<|vision_end|>'
        for (rows, columns), pairs in shown
    )


def spelt(family, part):
    return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)


def ask(family, shown, question, system=''):
    prefix = family.render_prefix(list(inputs_of(shown)), system)
    return join_parts([prefix, family.render_suffix(question, prefix.next_position)])


def test_the_family_is_known_by_its_model_type(family):
    assert isinstance(family, Qwen2VlFamily)


def test_one_image(family):
    assert spelt(family, ask(family, [((1, 2), 0)], 'What?')) == (
        f'{SYSTEM}{START}<|vision_start|><|image_pad|><|image_pad|><|vision_end|>What?{END}'
    )


def test_a_clip_is_one_video_with_a_span_for_each_pair(family):
    part = family.render_prefix(list(inputs_of([((1, 2), 3)])), '')
    assert spelt(family, part) == f'{SYSTEM}{START}{media([((1, 2), 3)])}'
    assert [span.image for span in part.spans] == [0, 1, 2]
    assert [len(span) for span in part.spans] == [2, 2, 2]
    assert part.spans[0].stop == part.spans[1].start


@pytest.mark.parametrize('cuts', [(4,), (3, 1), (1, 1, 2)])
def test_a_clip_may_come_in_pieces_of_several_pairs(family, cuts):
    pieces = [image(2, 3, 'front', pairs) for pairs in cuts]
    part = family.render_prefix(pieces, '')
    whole = family.render_prefix([image(2, 3, 'front')] * 4, '')
    assert part.tokens.tolist() == whole.tokens.tolist()
    np.testing.assert_array_equal(part.positions, whole.positions)
    assert [len(span) for span in part.spans] == [6 * pairs for pairs in cuts]
    assert part.vision_tokens == whole.vision_tokens


def test_frames_of_two_cameras_are_two_videos(family):
    shown = [image(1, 1, 'front'), image(1, 1, 'front'), image(1, 1, 'rear')]
    pads = ['<|video_pad|>' * 2, '<|video_pad|>']
    blocks = ''.join(f'<|vision_start|>{pad}<|vision_end|>' for pad in pads)
    assert spelt(family, family.render_prefix(shown, 'S')) == (
        f'<|im_start|>system\nS<|im_end|>\n{START}{blocks}'
    )


def test_a_clip_whose_size_changes_is_two_videos(family):
    shown = [image(1, 1, 'front'), image(1, 2, 'front')]
    assert spelt(family, family.render_prefix(shown, '')).count('<|vision_start|>') == 2


def test_positions_of_an_image_go_row_by_row_and_text_goes_on_behind_its_longer_side(family):
    part = family.render_prefix([image(2, 3)], '')
    (span,) = part.spans
    first = int(part.positions[0, span.start])
    assert (part.positions[:, span.start : span.stop] - first).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1],
        [0, 1, 2, 0, 1, 2],
    ]
    assert part.positions[:, span.stop].tolist() == [first + 3] * 3
    assert part.next_position == first + 4
    assert first == span.start


def test_a_clip_that_is_longer_than_its_sides_pushes_the_text_by_its_pairs(family):
    part = family.render_prefix(list(inputs_of([((1, 2), 4)])), '')
    assert part.next_position == part.spans[0].start + 4 + 1


def reference_positions(torch, ids, grids, image_id, video_id):
    """Transformers' own count, on one sequence."""
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    model = SimpleNamespace(
        config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    )
    model.get_vision_position_ids = lambda *args, **kwargs: Qwen2VLModel.get_vision_position_ids(
        model, *args, **kwargs
    )
    kinds = (ids == image_id) * 1 + (ids == video_id) * 2
    grid_of = {kind: [g for k, g in grids if k == kind] for kind in (1, 2)}
    positions, delta = Qwen2VLModel.get_rope_index(
        model,
        torch.from_numpy(ids)[None],
        torch.from_numpy(kinds)[None],
        *(torch.tensor(grid_of[kind]) if grid_of[kind] else None for kind in (1, 2)),
    )
    return positions[:, 0].numpy(), int(delta[0, 0]) + len(ids)


@pytest.mark.reference
@within_a_fixture
@given(shown=SHOWN, question=PLAIN)
def test_positions_are_those_of_the_published_model(family, shown, question):
    torch = pytest.importorskip('torch')
    # Where a clip has more pairs than its sides have blocks, transformers 5 and 4 disagree about
    # the text after it; the model was trained as 4 counts (the test below).
    shown = [(grid, min(pairs, max(grid))) for grid, pairs in shown]
    part = ask(family, shown, question)
    grids = [
        (2 if pairs else 1, [max(pairs, 1), 2 * rows, 2 * columns])
        for (rows, columns), pairs in shown
    ]
    ids = [family.tokenizer.token_id(t) for t in ('<|image_pad|>', '<|video_pad|>')]
    expected, after = reference_positions(torch, part.tokens, grids, *ids)
    np.testing.assert_array_equal(part.positions, expected)
    assert part.next_position == after


def walk(tokens, grids, pads):
    """The rule of the paper and of transformers 4, token by token."""
    found, position, items, place = [], 0, iter(grids), 0
    while place < len(tokens):
        if tokens[place] not in pads:
            found.append((position,) * 3)
            position, place = position + 1, place + 1
            continue
        pairs, rows, columns = next(items)
        found += [
            (position + t, position + y, position + x)
            for t in range(pairs)
            for y in range(rows)
            for x in range(columns)
        ]
        place += pairs * rows * columns
        position += max(pairs, rows, columns)
    return np.array(found).T, position


@within_a_fixture
@given(shown=SHOWN, later=SHOWN, words=st.tuples(PLAIN, PLAIN, PLAIN))
def test_two_turns_are_the_conversation_as_it_is_rendered_at_once(
    family, transformers_ids, shown, later, words
):
    first, answer, second = (text.strip() for text in words)
    parts = [ask(family, shown, first)]
    ids = list(family.encode_answer(answer))
    said = text_part(ids, parts[-1].next_position)
    positions = np.broadcast_to(said.positions, (3, len(ids)))
    parts.append(type(said)(said.tokens, positions, said.next_position))
    number = sum(max(pairs, 1) for _, pairs in shown)
    new = list(inputs_of(later))
    parts.append(family.render_next_turn(new, number, parts[-1].next_position))
    parts.append(family.render_suffix(second, parts[-1].next_position))
    whole = join_parts(parts)
    text = (
        f'{SYSTEM}{START}{media(shown)}{first}{END}{answer}'
        f'<|im_end|>\n{START}{media(later)}{second}{END}'
    )
    assert whole.tokens.tolist() == transformers_ids(text)
    assert [span.image for span in whole.spans] == list(range(number + len(new)))
    pads = {family.tokenizer.token_id(t) for t in ('<|image_pad|>', '<|video_pad|>')}
    covered = [place for span in whole.spans for place in range(span.start, span.stop)]
    assert covered == [i for i, token in enumerate(whole.tokens) if token in pads]
    grids = [(max(pairs, 1), *grid) for grid, pairs in [*shown, *later]]
    expected, after = walk(whole.tokens.tolist(), grids, pads)
    np.testing.assert_array_equal(whole.positions, expected)
    assert whole.next_position == after


@within_a_fixture
@given(shown=SHOWN, question=PLAIN, system=st.one_of(st.just(''), PLAIN))
def test_prefix_and_suffix_are_the_whole_prompt_as_transformers_encodes_it(
    family, transformers_ids, shown, question, system
):
    part = ask(family, shown, question, system)
    block = f'<|im_start|>system\n{system}<|im_end|>\n' if system else SYSTEM
    text = f'{block}{START}{media(shown)}{question.strip()}{END}'
    assert part.tokens.tolist() == transformers_ids(text)


@within_a_fixture
@given(question=HOSTILE.filter(str.strip), system=HOSTILE.filter(bool))
def test_template_tokens_in_anybodys_words_are_text(family, question, system):
    part = ask(family, [((1, 2), 0)], question, system)
    ids = part.tokens.tolist()
    counts = {'<|im_end|>': 2, '<|vision_start|>': 1, '<|vision_end|>': 1}
    counts |= {'<|image_pad|>': 2, '<|video_pad|>': 0}
    for token, number in counts.items():
        assert ids.count(family.tokenizer.token_id(token)) == number


def test_stop_tokens_are_the_turns_end_and_the_texts_end_and_the_files(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder(generation={'eos_token_id': [5]}))
    ends = {family.tokenizer.token_id(token) for token in ('<|im_end|>', '<|endoftext|>')}
    assert family.stop_tokens == ends | {5}


# --- sizes ---------------------------------------------------------------------------------------


def limits(**bounds):
    return any_limits(**{'context_tokens': 1536, 'longest_prompt': 1536, **bounds})


def frame(width, height):
    return Frame(np.zeros((height, width, 3), np.uint8), 0, FrameSource('front'))


def patches(family, width, height, shown_as=ShownAs.ALONE):
    return len(family.preprocess(frame(width, height), shown_as).pixels)


@within_a_fixture
@given(width=st.integers(1, 700), height=st.integers(1, 700), most=st.integers(4, 600))
def test_no_image_has_more_patches_than_the_engine_takes(qwen2_vl_folder, width, height, most):
    if max(width, height) > 200 * min(width, height):
        return
    family = load_family(qwen2_vl_folder(), limits(max_patches=most, max_grid_side=20))
    inputs = family.preprocess(frame(width, height))
    assert len(inputs.pixels) <= most
    assert max(inputs.grid) <= 20


def test_a_quarter_of_the_prompt_is_left_to_words(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder(), limits(longest_prompt=400))
    assert 250 <= patches(family, 1920, 1080) / 4 <= 300


def test_each_of_several_images_gets_a_quarter_of_the_pixels_of_one(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder(), limits(max_patches=3072))
    alone = patches(family, 1920, 1080)
    assert 3 <= alone / patches(family, 1920, 1080, ShownAs.AMONG_OTHERS) <= 5


def test_a_clip_is_as_many_pairs_at_once_as_the_vision_tower_takes(qwen2_vl_folder):
    assert load_family(qwen2_vl_folder()).frames_per_input == 2
    family = load_family(qwen2_vl_folder(), limits(max_patches=3072))
    assert family.frames_per_input == 8
    inputs = family.preprocess_clip([frame(1920, 1080)] * 8)
    assert inputs.grid[0] == inputs.images == 4
    assert 2000 <= len(inputs.pixels) <= 3072
    assert family.preprocess_clip([frame(1920, 1080)] * 5).grid[0] == 3


def test_an_engine_of_one_grid_gets_every_image_in_this_grid(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder(), limits(max_patches=600, patch_grid=(20, 30)))
    for size in [(640, 480), (50, 900), (20, 20)]:
        assert family.preprocess(frame(*size)).grid == (1, 20, 30)
    assert family.frames_per_input == 2
    assert family.preprocess_clip([frame(9, 9), frame(9, 9)]).grid == (1, 20, 30)


def test_small_images_are_enlarged_for_a_video_only(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder())
    assert family.preprocess(frame(112, 112), ShownAs.AMONG_OTHERS).grid == (1, 8, 8)
    (_, rows, columns) = family.preprocess_clip([frame(112, 112)]).grid
    assert rows * columns * 196 >= 128 * 28 * 28


def test_an_engine_with_no_room_for_a_block_is_refused(qwen2_vl_folder):
    with pytest.raises(ModelFileError, match='no image fits into 3 patches'):
        load_family(qwen2_vl_folder(), limits(max_patches=3))


def test_sizes_may_be_chosen(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder(), resized_width=210, resized_height=140)
    assert family.preprocess(frame(64, 48)).grid == (1, 10, 16)
    family = load_family(qwen2_vl_folder(), max_pixels=50176, clip_pixels=3136)
    assert 200 <= patches(family, 640, 480) <= 256
    assert patches(family, 640, 480, ShownAs.AMONG_OTHERS) <= 16
    family = load_family(qwen2_vl_folder(), limits(), max_pixels=50176, clip_pixels=3136)
    assert patches(family, 640, 480, ShownAs.AMONG_OTHERS) <= 16
    family = load_family(qwen2_vl_folder(), limits(max_patches=3072), clip_pixels=602112)
    assert patches(family, 1920, 1080, ShownAs.AMONG_OTHERS) > 2000
    assert patches(load_family(qwen2_vl_folder(), min_pixels=50176), 60, 60) >= 256


def test_the_newer_form_of_the_bounds_is_read_too(qwen2_vl_folder):
    size = {'shortest_edge': 3136, 'longest_edge': 50176}
    family = load_family(qwen2_vl_folder(min_pixels=..., max_pixels=..., size=size))
    alone = family.settings.sizes.alone
    assert (alone.min_pixels, alone.max_pixels) == (3136, 50176)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(BadRequestError, match='max_pixels is a whole number'):
        Qwen2VlOptions(max_pixels=-1)
    with pytest.raises(BadRequestError, match='resized_width and resized_height go together'):
        Qwen2VlOptions(resized_width=56)


def test_an_image_too_long_or_without_pixels_is_refused(family):
    for size in [(2010, 10), (0, 10)]:
        with pytest.raises(BadImageError):
            family.preprocess(frame(*size))


def test_the_fast_filter_gives_the_same_grid(qwen2_vl_folder):
    family = load_family(qwen2_vl_folder(), resize='fast')
    assert family.preprocess(frame(640, 480)).grid == (1, 34, 46)
