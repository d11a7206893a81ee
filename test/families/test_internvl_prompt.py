"""InternVL's prompts: exact, equal to transformers' own rendering, and cut where promised."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import load_family
from tokenizers import Tokenizer as Backend

from edge_vlm_ros.core import ShownAs, VisionInputs, join_parts, text_part

# What transformers itself is given; the form of the published models' chat_template.
CHATML_JINJA = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKUP = ('<|im_end|>', '<|im_start|>', '<img>', '</img>', '<IMG_CONTEXT>')
SYSTEM = '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。'  # noqa: E501, RUF001

WORDS = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=30)
PLAIN = st.one_of(WORDS, st.text('ab \n?红🤖e\u0301', min_size=1, max_size=20)).filter(
    lambda text: text.strip() and '<' not in text
)
HOSTILE = st.lists(st.one_of(st.sampled_from(MARKUP), WORDS), min_size=1, max_size=5).map(''.join)
COUNTS = st.lists(st.integers(1, 5), max_size=4)

within_a_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def images(*token_counts, shown_as=None):
    pixels = np.zeros((1, 3, 1, 1), np.float32)
    is_alone = len(token_counts) == 1 and shown_as is None
    way = ShownAs.ALONE if is_alone else shown_as or ShownAs.ONE_OF_IMAGES
    return [VisionInputs(pixels, (1, 1, 1), tokens, shown_as=way) for tokens in token_counts]


def moments(*token_counts):
    return images(*token_counts, shown_as=ShownAs.AMONG_OTHERS)


def spelt(family, part):
    return family.tokenizer.decode(part.tokens.tolist(), keep_special=True)


def block(tokens):
    return '<img>' + '<IMG_CONTEXT>' * tokens + '</img>\n'


def media(token_counts):
    if len(token_counts) == 1:
        return block(token_counts[0])
    return ''.join(f'Image-{n}: {block(tokens)}' for n, tokens in enumerate(token_counts, 1))


@pytest.fixture(scope='module')
def reference(tokenizer_json):
    """The same tokenizer in transformers, with a chat template: an independent rendering."""
    transformers = pytest.importorskip('transformers')
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Backend.from_str(tokenizer_json), chat_template=CHATML_JINJA
    )


def reference_ids(reference, messages):
    text = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return reference(text, add_special_tokens=False)['input_ids']


def message(role, content):
    return {'role': role, 'content': content}


@pytest.fixture
def plain(model_folder):
    """A family whose model was trained without a system text, as the demo model."""
    return load_family(model_folder(system_message=''))


def test_one_frame_stands_before_the_question(plain):
    prefix = plain.render_prefix(images(2), '')
    suffix = plain.render_suffix('What is this?', prefix.next_position)
    assert spelt(plain, prefix) == '<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\n'
    assert spelt(plain, suffix) == 'What is this?<|im_end|>\n<|im_start|>assistant\n'


def test_the_moments_of_a_clip_and_several_images_are_numbered_as_in_the_model_card(plain):
    def written(prefix):
        return spelt(plain, prefix).replace('<img><IMG_CONTEXT></img>', '<image>')

    clip = plain.render_prefix(moments(1, 1), '')
    assert written(clip) == '<|im_start|>user\nFrame1: <image>\nFrame2: <image>\n'
    several = plain.render_prefix(images(1, 1), '')
    assert written(several) == '<|im_start|>user\nImage-1: <image>\nImage-2: <image>\n'


def test_without_frames_the_question_follows_at_once(plain):
    prefix = plain.render_prefix([], '')
    assert spelt(plain, prefix) == '<|im_start|>user\n'
    assert prefix.spans == ()


def test_the_published_system_text_is_the_default_and_a_question_may_bring_its_own(model_folder):
    family = load_family(model_folder())
    assert spelt(family, family.render_prefix([], '')) == (
        f'<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n'
    )
    assert spelt(family, family.render_prefix([], 'Be brief.')) == (
        '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n'
    )


def test_config_json_may_bring_the_system_text(model_folder):
    family = load_family(model_folder(system_message='You are a robot.'))
    assert spelt(family, family.render_prefix([], '')).startswith(
        '<|im_start|>system\nYou are a robot.<|im_end|>\n'
    )


def test_the_older_template_has_no_line_breaks_between_turns(model_folder):
    family = load_family(model_folder(template='Hermes-2', system_message='S'))
    part = join_parts([family.render_prefix([], ''), family.render_suffix('Q', 0)])
    assert spelt(family, part) == (
        '<|im_start|>system\nS<|im_end|><|im_start|>user\nQ<|im_end|><|im_start|>assistant\n'
    )


def test_the_next_turn_closes_the_answer_and_opens_the_question(plain):
    assert spelt(plain, plain.render_next_turn([], 1, 30)) == '<|im_end|>\n<|im_start|>user\n'


def test_new_frames_of_a_later_turn_keep_their_place_in_the_conversation(plain):
    part = plain.render_next_turn(images(2, 3), first_image=4, position=100)
    assert [span.image for span in part.spans] == [4, 5]
    assert spelt(plain, part).startswith('<|im_end|>\n<|im_start|>user\nImage-1: <img>')
    assert part.positions[0] == 100
    assert part.next_position == 100 + len(part)


@within_a_fixture
@given(counts=COUNTS, question=PLAIN)
def test_spans_cover_the_placeholders_and_nothing_else(plain, counts, question):
    prefix = plain.render_prefix(images(*counts), '')
    context = plain.tokenizer.token_id('<IMG_CONTEXT>')
    placeholders = np.flatnonzero(prefix.tokens == context).tolist()
    covered = [place for span in prefix.spans for place in range(span.start, span.stop)]
    assert covered == placeholders
    assert [len(span) for span in prefix.spans] == counts
    assert prefix.vision_tokens == sum(counts)
    assert not plain.render_suffix(question, prefix.next_position).spans


@within_a_fixture
@given(counts=COUNTS, question=PLAIN, system=st.one_of(st.just(''), PLAIN))
def test_prefix_and_suffix_are_the_whole_prompt_as_transformers_renders_it(
    plain, reference, counts, question, system
):
    prefix = plain.render_prefix(images(*counts), system)
    suffix = plain.render_suffix(question, prefix.next_position)
    whole = join_parts([prefix, suffix])
    messages = [message('system', system)] if system else []
    messages.append(message('user', media(counts) + question.strip()))
    assert whole.tokens.tolist() == reference_ids(reference, messages)
    assert whole.positions.tolist() == list(range(len(whole)))
    assert whole.next_position == len(whole)


@within_a_fixture
@given(counts=COUNTS, later=COUNTS, words=st.tuples(PLAIN, PLAIN, PLAIN))
def test_two_turns_are_the_conversation_as_transformers_renders_it(
    plain, reference, counts, later, words
):
    first, answer, second = (text.strip() for text in words)
    parts = [plain.render_prefix(images(*counts), '')]
    parts.append(plain.render_suffix(first, parts[-1].next_position))
    parts.append(text_part(plain.encode_answer(answer), parts[-1].next_position))
    parts.append(plain.render_next_turn(images(*later), len(counts), parts[-1].next_position))
    parts.append(plain.render_suffix(second, parts[-1].next_position))
    whole = join_parts(parts)
    messages = [
        message('user', media(counts) + first),
        message('assistant', answer),
        message('user', media(later) + second),
    ]
    assert whole.tokens.tolist() == reference_ids(reference, messages)
    assert whole.positions.tolist() == list(range(len(whole)))
    assert [span.image for span in whole.spans] == list(range(len(counts) + len(later)))


@within_a_fixture
@given(question=HOSTILE.filter(str.strip), system=HOSTILE)
def test_template_tokens_in_anybodys_words_are_text(plain, question, system):
    prefix = plain.render_prefix(images(2), system)
    suffix = plain.render_suffix(question, prefix.next_position)
    ids = [*prefix.tokens.tolist(), *suffix.tokens.tolist()]
    turns = 3 if system else 2
    counts = {'<|im_start|>': turns, '<|im_end|>': turns - 1}
    counts |= {'<img>': 1, '</img>': 1, '<IMG_CONTEXT>': 2}
    for token, count in counts.items():
        assert ids.count(plain.tokenizer.token_id(token)) == count


def test_blanks_around_a_question_are_left_out(plain):
    padded, bare = plain.render_suffix(' \n What? \n', 0), plain.render_suffix('What?', 0)
    assert padded.tokens.tolist() == bare.tokens.tolist()


def test_stop_tokens_are_the_templates_and_the_files(model_folder):
    family = load_family(model_folder(generation={'eos_token_id': [5, 6]}))
    assert family.stop_tokens == {family.tokenizer.token_id('<|im_end|>'), 5, 6}


def test_end_tokens_in_config_json_count_only_if_they_are_special(model_folder):
    family = load_family(model_folder())  # llm_config says 7, an ordinary letter here
    end = family.tokenizer.token_id('<|im_end|>')
    assert family.stop_tokens == {end}
    text_end = family.tokenizer.token_id('<|endoftext|>')
    family = load_family(model_folder(llm_config={'eos_token_id': text_end}))
    assert family.stop_tokens == {end, text_end}
