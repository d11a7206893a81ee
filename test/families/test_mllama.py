"""Llama 3.2 Vision: prompts as its template renders them, and which text sees which image."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import limits, load_family

from edge_vlm_ros.core import (
    BadImageError,
    Frame,
    FrameSource,
    ModelFileError,
    ShownAs,
    VisionInputs,
    join_parts,
    text_part,
)
from edge_vlm_ros.families.mllama import MllamaFamily

BEGIN = '<|begin_of_text|>'
USER = '<|start_header_id|>user<|end_header_id|>\n\n'
ANSWER = '<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n'
DATES = 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n'
MARKUP = ('<|eot_id|>', '<|image|>', '<|start_header_id|>', '<|begin_of_text|>')

WORDS = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=30)
PLAIN = st.one_of(WORDS, st.text('ab \n?红🤖e\u0301', min_size=1, max_size=20)).filter(
    lambda text: text.strip() and '<' not in text
)
HOSTILE = st.lists(st.one_of(st.sampled_from(MARKUP), WORDS), min_size=1, max_size=5).map(''.join)
COUNTS = st.integers(0, 3)

within_a_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def family(mllama_folder):
    return load_family(mllama_folder())


def images(number):
    pixels = np.zeros((0, 3, 56, 56), np.float32)
    return [VisionInputs(pixels, (1, 1, 1), 0)] * number


def system(text=''):
    return f'<|start_header_id|>system<|end_header_id|>\n\n{DATES}{text}<|eot_id|>'


def spelt(family, part):
    return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)


def ask(family, number, question, system_prompt=''):
    prefix = family.render_prefix(images(number), system_prompt)
    return join_parts([prefix, family.render_suffix(question, prefix.next_position)])


def test_the_family_is_known_by_its_model_type(family):
    assert isinstance(family, MllamaFamily)


def test_an_image_and_its_question_are_one_turn_without_a_system_block(family):
    assert spelt(family, ask(family, 1, 'What?')) == f'{BEGIN}{USER}<|image|>What?{ANSWER}'


def test_words_alone_come_with_the_templates_dates(family):
    assert spelt(family, ask(family, 0, 'Who?')) == f'{BEGIN}{system()}{USER}Who?{ANSWER}'


def test_a_system_prompt_comes_with_them_too(family):
    assert spelt(family, ask(family, 1, 'What?', ' Be brief. ')) == (
        f'{BEGIN}{system("Be brief.")}{USER}<|image|>What?{ANSWER}'
    )


def test_the_span_is_the_images_own_token(family):
    part = ask(family, 2, 'What?')
    token = family.tokenizer.token_id('<|image|>')
    places = np.flatnonzero(part.tokens == token).tolist()
    assert [(span.image, span.start, span.stop) for span in part.spans] == [
        (0, places[0], places[0] + 1),
        (1, places[1], places[1] + 1),
    ]


def attended(part):
    """What an engine makes of the spans: for each token the images it attends to."""
    seen, last, found = set(), -2, []
    images_at = {span.start: span.image for span in part.spans}
    for place in range(len(part)):
        if place in images_at:
            seen = {images_at[place]} | (seen if last == place - 1 else set())
            last = place
        found.append(seen)
    return found


@within_a_fixture
@given(number=COUNTS, later=COUNTS, words=st.tuples(PLAIN, PLAIN))
def test_who_sees_what_is_as_the_published_processor_has_it(family, number, later, words):
    processing = pytest.importorskip('transformers.models.mllama.processing_mllama')
    turn = family.render_next_turn(images(later), number, 0)
    whole = join_parts([ask(family, number, words[0]), turn, family.render_suffix(words[1], 0)])
    token = family.tokenizer.token_id('<|image|>')
    ranges = processing.get_cross_attention_token_mask(whole.tokens.tolist(), token)
    expected = np.zeros((len(whole), 0), int)
    if ranges:
        dense = processing.convert_sparse_cross_attention_mask_to_dense(
            [ranges], [[1] * (number + later)], 1, len(whole)
        )
        expected = dense[0, :, :, 0]
    assert attended(whole) == [set(np.flatnonzero(row).tolist()) for row in expected]


@within_a_fixture
@given(number=COUNTS, later=COUNTS, words=st.tuples(PLAIN, PLAIN, PLAIN))
def test_two_turns_are_the_conversation_as_it_is_rendered_at_once(
    family, transformers_ids, number, later, words
):
    first, answer, second = (text.strip() for text in words)
    parts = [ask(family, number, first)]
    parts.append(text_part(family.encode_answer(answer), parts[-1].next_position))
    parts.append(family.render_next_turn(images(later), number, parts[-1].next_position))
    parts.append(family.render_suffix(second, parts[-1].next_position))
    whole = join_parts(parts)
    block = '' if number else system()
    text = (
        f'{BEGIN}{block}{USER}{"<|image|>" * number}{first}{ANSWER}{answer}'
        f'<|eot_id|>{USER}{"<|image|>" * later}{second}{ANSWER}'
    )
    assert whole.tokens.tolist() == transformers_ids(text)
    assert whole.positions.tolist() == list(range(len(whole)))
    assert whole.next_position == len(whole)
    assert [span.image for span in whole.spans] == list(range(number + later))


@within_a_fixture
@given(question=HOSTILE.filter(str.strip), words=HOSTILE.filter(str.strip))
def test_template_tokens_in_anybodys_words_are_text(family, question, words):
    ids = ask(family, 1, question, words).tokens.tolist()
    counts = {'<|eot_id|>': 2, '<|image|>': 1, '<|start_header_id|>': 3, '<|begin_of_text|>': 1}
    for token, number in counts.items():
        assert ids.count(family.tokenizer.token_id(token)) == number


def test_stop_tokens_are_the_turns_and_the_texts_end(family):
    names = ('<|eot_id|>', '<|end_of_text|>', '<|eom_id|>')
    assert family.stop_tokens == {family.tokenizer.token_id(token) for token in names}


def frame(width, height):
    return Frame(np.full((height, width, 3), 200, np.uint8), 0, FrameSource('front'))


def test_tiles_that_an_image_lacks_are_zeros_and_its_own_border_is_black(family):
    inputs = family.preprocess(frame(112, 40))
    assert inputs.grid == (1, 1, 2)
    assert inputs.images == 1, 'its tiles run together'
    assert inputs.pixels.shape == (4, 3, 56, 56)
    assert not inputs.pixels[2:].any()
    black = [-mean / std for mean, std in zip((0.48145466,), (0.26862954,), strict=True)]
    np.testing.assert_allclose(inputs.pixels[0, 0, 40:], black[0], rtol=1e-6)
    assert (inputs.pixels[0, 0, :40] > 0).all()


def test_each_of_several_images_has_one_tile(family):
    assert family.preprocess(frame(200, 100), ShownAs.AMONG_OTHERS).grid == (1, 1, 1)
    assert family.preprocess_clip([frame(200, 100)]).grid == (1, 1, 1)


def test_the_number_of_tiles_may_be_bounded(mllama_folder):
    family = load_family(mllama_folder(), max_tiles=1)
    inputs = family.preprocess(frame(200, 100))
    assert inputs.grid == (1, 1, 1)
    assert inputs.pixels.shape == (4, 3, 56, 56)


def test_an_image_without_pixels_is_refused(family):
    with pytest.raises(BadImageError):
        family.preprocess(frame(0, 10))


def test_files_that_do_not_agree_are_refused(mllama_folder):
    with pytest.raises(ModelFileError, match=r'size\.width is 112, expected 56 as in config'):
        load_family(mllama_folder(size={'height': 56, 'width': 112}))


def test_an_engine_for_other_tiles_is_refused(mllama_folder):
    with pytest.raises(ModelFileError, match='says tiles of 56 px, the vision tower takes 560'):
        load_family(mllama_folder(), limits(tile_px=560))
