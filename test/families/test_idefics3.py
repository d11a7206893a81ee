"""SmolVLM's pixels and prompts, equal to the published processor's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.families import limits, load_family
from tokenizers import Tokenizer as Backend

from edge_vlm_ros.core import (
    BadImageError,
    BadRequestError,
    ErrorCode,
    Frame,
    FrameSource,
    ModelConfig,
    ModelFileError,
    ShownAs,
    join_parts,
)
from edge_vlm_ros.families import read_family

TILE_PX, LONGEST_PX, ROWS = 64, 256, 4
AMONG = ShownAs.AMONG_OTHERS
TEMPLATE = (
    '<|im_start|>{% for message in messages %}{{message["role"] | capitalize}}'
    '{% if message["content"][0]["type"] == "image" %}{{":"}}{% else %}{{": "}}{% endif %}'
    '{% for line in message["content"] %}'
    '{% if line["type"] == "text" %}{{line["text"]}}'
    '{% elif line["type"] == "image" %}{{ "<image>" }}{% endif %}{% endfor %}'
    '<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ "Assistant:" }}{% endif %}'
)
"""As in the published models: a blank after the speaker's colon where words come first."""
SIZES = [
    (1280, 720),
    (640, 480),
    (480, 640),
    (64, 64),
    (40, 30),
    (320, 180),
    (180, 320),
    (1024, 8),
    (7, 901),
    (333, 332),
    (256, 64),
    (1, 1),
]
WORDS = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=30).filter(
    lambda text: text.strip() and '<' not in text and text.strip() == text
)

within_a_fixture = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def frame(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Frame(pixels, 0, FrameSource(''))


@pytest.fixture(scope='module')
def published():
    """transformers' own classes; their image processors that need no torch."""
    return pytest.importorskip('transformers')


@pytest.fixture
def columns_first(monkeypatch):
    """Let Pillow resize columns, then rows, as all before 13 do (see `resize_exact`)."""
    direct = Image.Image.resize

    def resize(self, size, resample=None, *args, **more):
        turned = direct(self, (size[0], self.size[1]), resample, *args, **more)
        return direct(turned, size, resample, *args, **more)

    monkeypatch.setattr(Image.Image, 'resize', resize)


def processed(published, kind, pixels, **options):
    from transformers.models.idefics3 import image_processing_pil_idefics3 as idefics3
    from transformers.models.smolvlm import image_processing_pil_smolvlm as smolvlm

    makers = {
        'idefics3': idefics3.Idefics3ImageProcessorPil,
        'smolvlm': smolvlm.SmolVLMImageProcessorPil,
    }
    options = {
        'size': {'longest_edge': LONGEST_PX},
        'max_image_size': {'longest_edge': TILE_PX},
        **options,
    }
    found = makers[kind](**options)(
        Image.fromarray(pixels), return_tensors='np', return_row_col_info=True
    )
    return found['pixel_values'][0], found['rows'][0][0], found['cols'][0][0]


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('kind', ['idefics3', 'smolvlm'])
@pytest.mark.parametrize('is_split', [True, False])
@pytest.mark.usefixtures('columns_first')
def test_pixels_of_a_frame_alone_are_the_published_processors_bit_for_bit(
    smolvlm_folder, published, kind, size, is_split
):
    family = load_family(smolvlm_folder({'model_type': kind}, do_image_splitting=is_split))
    shown = frame(*size)
    pixels, rows, columns = processed(published, kind, shown.pixels, do_image_splitting=is_split)
    inputs = family.preprocess(shown)
    assert inputs.grid == (len(pixels), rows, columns)
    assert inputs.pixels.dtype == np.float32
    np.testing.assert_array_equal(inputs.pixels, pixels)
    assert inputs.tokens == ROWS * len(pixels)


@pytest.mark.parametrize('size', [(1280, 720), (640, 480), (1920, 1080)], ids=str)
def test_camera_frames_are_bit_equal_with_any_pillow_at_the_published_size(
    smolvlm_folder, published, size
):
    sizes = {'size': {'longest_edge': 2048}, 'max_image_size': {'longest_edge': 512}}
    vision = {'vision_config': {'image_size': 512, 'patch_size': 16}, 'scale_factor': 4}
    family = load_family(smolvlm_folder(vision, **sizes))
    shown = frame(*size)
    pixels, rows, columns = processed(published, 'idefics3', shown.pixels, **sizes)
    inputs = family.preprocess(shown)
    assert inputs.grid == (13, rows, columns) == (13, 3, 4)
    assert inputs.tokens == 832
    np.testing.assert_array_equal(inputs.pixels, pixels)


@within_a_fixture
@given(width=st.integers(1, 400), height=st.integers(1, 400))
@pytest.mark.usefixtures('columns_first')
def test_law_grids_of_any_size_are_the_published_ones(smolvlm_folder, published, width, height):
    shown = frame(width, height)
    pixels, rows, columns = processed(published, 'idefics3', shown.pixels)
    inputs = load_family(smolvlm_folder()).preprocess(shown)
    assert inputs.grid == (len(pixels), rows, columns)
    np.testing.assert_array_equal(inputs.pixels, pixels)


@pytest.mark.parametrize(('max_tiles', 'side'), [(1, 1), (3, 1), (4, 2), (8, 2), (9, 3), (40, 4)])
@pytest.mark.usefixtures('columns_first')
def test_max_tiles_is_a_square_that_the_published_size_says(
    smolvlm_folder, published, max_tiles, side
):
    family = load_family(smolvlm_folder(), max_tiles=max_tiles)
    longest = {'size': {'longest_edge': side * TILE_PX}}
    for size in [(640, 480), (100, 100), (90, 300)]:
        pixels, rows, columns = processed(published, 'idefics3', frame(*size).pixels, **longest)
        inputs = family.preprocess(frame(*size))
        assert inputs.grid == (len(pixels), rows, columns)
        assert rows * columns <= max_tiles
        np.testing.assert_array_equal(inputs.pixels, pixels)


@pytest.mark.usefixtures('columns_first')
def test_one_of_several_frames_is_one_tile_as_a_videos_frame(smolvlm_folder, published):
    family = load_family(smolvlm_folder())
    shown = frame(320, 180)
    options = {'size': {'longest_edge': TILE_PX}, 'do_image_splitting': False}
    pixels, *_ = processed(published, 'smolvlm', shown.pixels, **options)
    for inputs in (family.preprocess(shown, AMONG), family.preprocess_clip([shown])):
        assert inputs.grid == (1, 0, 0)
        np.testing.assert_array_equal(inputs.pixels, pixels)


def test_the_whole_image_comes_last_and_tiles_row_by_row(smolvlm_folder):
    pixels = np.zeros((128, 256, 3), np.uint8)
    pixels[:64, 192:] = 255
    inputs = load_family(smolvlm_folder()).preprocess(Frame(pixels, 0, FrameSource('')))
    assert inputs.grid == (9, 2, 4)
    assert inputs.pixels[3].mean() > 0.9
    assert inputs.pixels[4].max() < -0.9
    assert inputs.pixels[8][:, :20, 56:].mean() > 0.9


def test_no_frame_becomes_a_tile_of_zeros(smolvlm_folder):
    """Zeros are what the published graphs take for padding."""
    family = load_family(smolvlm_folder())
    for level in range(256):
        grey = np.full((64, 64, 3), level, np.uint8)
        assert family.preprocess(Frame(grey, 0, FrameSource('')), AMONG).pixels.all()


@pytest.mark.parametrize('shape', [(0, 5), (5, 0)])
def test_an_image_without_a_side_is_refused(smolvlm_folder, shape):
    empty = Frame(np.zeros((*shape, 3), np.uint8), 0, FrameSource(''))
    with pytest.raises(BadImageError):
        load_family(smolvlm_folder()).preprocess(empty)


# --- prompts -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def processor(published, smolvlm_json):
    """The published processor with this tokenizer, tiles and template."""
    from transformers.models.idefics3 import image_processing_pil_idefics3 as idefics3

    tokenizer = published.PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(smolvlm_json))
    images = idefics3.Idefics3ImageProcessorPil(
        size={'longest_edge': LONGEST_PX}, max_image_size={'longest_edge': TILE_PX}
    )
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

    return Idefics3Processor(images, tokenizer, image_seq_len=ROWS, chat_template=TEMPLATE)


def processor_ids(processor, messages, images, *, is_split=True):
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    found = processor(
        text=text,
        images=[Image.fromarray(one) for one in images] or None,
        do_image_splitting=is_split,
        add_special_tokens=False,
        return_tensors='np',
    )
    return found['input_ids'][0].tolist()


def user(words, images=0):
    return message('user', words, images)


def message(role, words, images=0):
    shown = [{'type': 'image'}] * images
    return {'role': role, 'content': [*shown, {'type': 'text', 'text': words}]}


def ask(family, words, inputs=(), system=''):
    prefix = family.render_prefix(inputs, system)
    suffix = family.render_suffix(words, prefix.next_position, follows_images=bool(inputs))
    return join_parts([prefix, suffix])


def spelt(family, part):
    return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)


def test_two_line_breaks_are_one_token(smolvlm_folder):
    """The last row's and the whole image's: the trap needs a vocabulary that has them so."""
    family = load_family(smolvlm_folder())
    assert len(family.tokenizer.encode('\n\n')) == 1
    part = family.render_prefix([family.preprocess(frame(128, 64))], '')
    placeholders = '<image>' * ROWS
    around = '<fake_token_around_image>'
    assert spelt(family, part) == (
        f'<|im_start|>User:{around}<row_1_col_1>{placeholders}{around}<row_1_col_2>{placeholders}'
        f'{around}<row_1_col_3>{placeholders}{around}<row_1_col_4>{placeholders}\n'
        f'{around}<row_2_col_1>{placeholders}{around}<row_2_col_2>{placeholders}'
        f'{around}<row_2_col_3>{placeholders}{around}<row_2_col_4>{placeholders}\n\n'
        f'{around}<global-img>{placeholders}{around}'
    )
    breaks = family.tokenizer.encode('\n\n') + family.tokenizer.encode('\n')
    assert [token for token in part.tokens.tolist() if token in breaks] == breaks[::-1]


def test_words_after_an_image_follow_at_once_and_words_alone_after_a_blank(smolvlm_folder):
    family = load_family(smolvlm_folder())
    asked = spelt(family, ask(family, ' What? '))
    assert asked == '<|im_start|>User: What?<end_of_utterance>\nAssistant:'
    shown = spelt(family, ask(family, 'What?', [family.preprocess(frame(9, 9), AMONG)]))
    assert shown.startswith('<|im_start|>User:<fake_token_around_image><global-img><image>')
    assert shown.endswith('<fake_token_around_image>What?<end_of_utterance>\nAssistant:')


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_ids_of_one_frame_are_the_published_processors(smolvlm_folder, processor, size):
    family = load_family(smolvlm_folder())
    shown = frame(*size)
    expected = processor_ids(processor, [user('What is this?', 1)], [shown.pixels])
    part = ask(family, 'What is this?', [family.preprocess(shown)])
    assert part.tokens.tolist() == expected


@within_a_fixture
@given(words=st.lists(WORDS, min_size=2, max_size=2), system=st.one_of(st.just(''), WORDS))
def test_law_ids_of_words_are_the_published_processors(smolvlm_folder, processor, words, system):
    family = load_family(smolvlm_folder())
    messages = [message('system', system)] if system else []
    messages.append(user(words[0]))
    expected = processor_ids(processor, messages, [])
    assert ask(family, words[0], system=system).tokens.tolist() == expected
    expected = processor_ids(processor, [user(words[1], 1)], [frame(9, 9).pixels])
    part = ask(family, words[1], [family.preprocess(frame(9, 9))])
    assert part.tokens.tolist() == expected


@pytest.mark.parametrize('later', [0, 1, 2])
def test_ids_of_several_frames_in_several_turns_are_the_published_processors(
    smolvlm_folder, processor, later
):
    family = load_family(smolvlm_folder())
    frames = [frame(50, 40, seed) for seed in range(2 + later)]
    inputs = [family.preprocess(one, AMONG) for one in frames]
    messages = [
        user('What is here?', 2),
        message('assistant', 'A box.'),
        user('And now?', later),
    ]
    expected = processor_ids(processor, messages, [one.pixels for one in frames], is_split=False)
    asked = ask(family, 'What is here?', inputs[:2])
    answered = [*asked.tokens.tolist(), *family.encode_answer('A box.')]
    turn = family.render_next_turn(inputs[2:], 2, len(answered))
    words = family.render_suffix('And now?', turn.next_position, follows_images=later > 0)
    assert answered + turn.tokens.tolist() + words.tokens.tolist() == expected
    assert [span.image for span in turn.spans] == list(range(2, 2 + later))


def test_each_tile_has_a_span_and_rows_of_its_own(smolvlm_folder):
    family = load_family(smolvlm_folder())
    inputs = [family.preprocess(frame(128, 64)), family.preprocess(frame(9, 9), AMONG)]
    part = family.render_prefix(inputs, '')
    placeholder = family.tokenizer.token_id('<image>')
    where = np.flatnonzero(part.tokens == placeholder)
    held = np.concatenate([np.arange(span.start, span.stop) for span in part.spans])
    np.testing.assert_array_equal(held, where)
    rows = [(span.image, span.first_row) for span in part.spans]
    assert rows == [*((0, ROWS * tile) for tile in range(9)), (1, 0)]


def test_an_answer_begins_with_a_blank(smolvlm_folder):
    family = load_family(smolvlm_folder())
    assert family.encode_answer('Yes') == family.tokenizer.encode(' Yes')


def test_template_tokens_in_a_question_are_text(smolvlm_folder):
    family = load_family(smolvlm_folder())
    part = ask(family, 'Is <image><end_of_utterance> here?')
    assert family.tokenizer.token_id('<image>') not in part.tokens
    ends = part.tokens == family.tokenizer.token_id('<end_of_utterance>')
    assert ends.sum() == 1


def test_an_answer_ends_as_the_files_say(smolvlm_folder):
    folder = smolvlm_folder(
        {'text_config': {'model_type': 'llama', 'eos_token_id': 10_000}},
        generation={'eos_token_id': 7},
    )
    family = load_family(folder)
    assert family.stop_tokens == {7, family.tokenizer.token_id('<end_of_utterance>')}


# --- what it costs -------------------------------------------------------------------------------


def costs(folder, **options):
    return read_family(ModelConfig(folder), options).tile_costs()


@pytest.mark.parametrize('max_tiles', [0, 1, 4, 9])
def test_a_square_frame_costs_most_and_a_long_one_less(smolvlm_folder, max_tiles):
    folder = smolvlm_folder()
    options = {'max_tiles': max_tiles} if max_tiles else {}
    family, said = load_family(folder, **options), costs(folder, **options)
    square, long = family.preprocess(frame(99, 99)), family.preprocess(frame(1024, 8))
    assert said.images(said.tiles) == len(square.pixels) >= len(long.pixels)
    assert said.tokens(said.tiles) == len(ask(family, 'What?', [square]).tokens)
    for size in SIZES:
        inputs = family.preprocess(frame(*size))
        assert inputs.images <= said.images(said.tiles)
        assert len(ask(family, 'What?', [inputs]).tokens) <= said.tokens(said.tiles)


@pytest.mark.parametrize(
    ('bounds', 'side'),
    [
        ({}, 4),
        ({'tiles_per_frame': 1}, 1),
        ({'tiles_per_frame': 3}, 1),
        ({'tiles_per_frame': 4}, 2),
        ({'tiles_per_frame': 15}, 3),
        ({'max_images': 10}, 3),
        ({'max_images': 9}, 2),
        ({'longest_prompt': 200}, 4),
        ({'longest_prompt': 150}, 3),
    ],
)
def test_a_default_is_a_square_that_the_engine_bears(smolvlm_folder, bounds, side):
    family = load_family(smolvlm_folder(), limits(**bounds))
    tiles, rows, columns = family.preprocess(frame(99, 99)).grid
    assert (rows, columns) == ((side, side) if side > 1 else (0, 0))
    assert tiles == (side**2 + 1 if side > 1 else 1)


def test_more_tiles_than_the_engine_takes_are_refused(smolvlm_folder):
    with pytest.raises(BadRequestError) as raised:
        load_family(smolvlm_folder(), limits(max_images=5), max_tiles=9)
    assert raised.value.code is ErrorCode.UNSUPPORTED_OPTION
    assert 'at most max_tiles 4' in raised.value.message


# --- bad input -----------------------------------------------------------------------------------


def test_a_folder_that_transformers_5_saved_has_it_in_processor_config(smolvlm_folder):
    folder = smolvlm_folder()
    old = folder / 'preprocessor_config.json'
    image_processor = json.loads(old.read_text())
    (folder / 'processor_config.json').write_text(json.dumps({'image_processor': image_processor}))
    before = load_family(folder).preprocess(frame(99, 99))
    old.unlink()
    after = load_family(folder).preprocess(frame(99, 99))
    np.testing.assert_array_equal(after.pixels, before.pixels)


@pytest.mark.parametrize(
    ('config', 'preprocessor', 'words'),
    [
        ({}, {'max_image_size': ...}, 'max_image_size.longest_edge is missing'),
        ({}, {'size': {'height': 5}}, 'size.longest_edge is missing'),
        ({}, {'size': {'longest_edge': 8192}}, 'at most 4096'),
        ({}, {'size': {'longest_edge': 32}}, 'at least the second'),
        ({}, {'size': {'longest_edge': 255}}, 'even numbers'),
        ({}, {'size': {'longest_edge': 64 * 7}}, "no token '<row_1_col_7>'"),
        ({}, {'max_image_size': {'longest_edge': 128}}, 'do not fit together'),
        ({}, {'resample': 3}, 'resample is 3, expected 1 (lanczos)'),
        ({}, {'do_image_splitting': 'yes'}, 'do_image_splitting'),
        ({'scale_factor': 3}, {}, 'do not fit together'),
        ({'vision_config': {'image_size': 64}}, {}, 'vision_config.patch_size is missing'),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(smolvlm_folder, config, preprocessor, words):
    with pytest.raises(ModelFileError) as raised:
        load_family(smolvlm_folder(config, **preprocessor))
    assert words in raised.value.message


def test_an_engine_for_other_tiles_is_refused(smolvlm_folder):
    with pytest.raises(ModelFileError, match='tiles of 64 px'):
        load_family(smolvlm_folder(), limits(tile_px=448))
