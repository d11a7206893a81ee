"""InternVL2 2B and 4B: the right template, tokenizer and stop ids, each its own.

Expected ids were made by test/support/reference/sentencepiece_golden.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from support.families import load_family
from support.reference.internvl2_cases import SYSTEM, internlm2_config, phi3_config

from edge_vlm_ros.core import ModelFileError, VisionInputs, join_parts, text_part

DATA = Path(__file__).parents[1] / 'text' / 'data'
GOLDEN = json.loads((DATA / 'sentencepiece.json').read_text(encoding='utf-8'))
FORMS = {
    'internlm2-chat': ('bare', internlm2_config(), GOLDEN['internlm2_prompts']),
    'phi3-chat': ('prefix', phi3_config(), GOLDEN['phi3_prompts']),
}
STOCK = '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。'  # noqa: E501, RUF001


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def make(model_folder):
    def make(form, **changes):
        folder = model_folder(template=form, **changes)
        (folder / 'tokenizer.json').unlink()
        name, config, _ = FORMS[form]
        (folder / 'tokenizer.model').write_bytes((DATA / f'{name}.model').read_bytes())
        (folder / 'tokenizer_config.json').write_text(json.dumps(config), encoding='utf-8')
        return load_family(folder)

    return make


def image():
    return VisionInputs(np.zeros((0, 3, 112, 112), np.float32), (1, 1, 1), 2)


def test_a_question_about_an_image(form, make):
    family = make(form)
    prefix = family.render_prefix([image()], SYSTEM)
    whole = join_parts([prefix, family.render_suffix('What is this?', prefix.next_position)])
    assert whole.tokens.tolist() == FORMS[form][2][0]
    (span,) = whole.spans
    context = family.tokenizer.token_id('<IMG_CONTEXT>')
    assert whole.tokens[span.start : span.stop].tolist() == [context] * 2


def test_two_turns_of_words(form, make):
    family = make(form)
    parts = [family.render_prefix([], SYSTEM)]
    parts.append(family.render_suffix('Who are you?', parts[-1].next_position))
    parts.append(text_part(family.encode_answer('A robot.'), parts[-1].next_position))
    parts.append(family.render_next_turn([], 0, parts[-1].next_position))
    parts.append(family.render_suffix('机器人前面', parts[-1].next_position))
    whole = join_parts(parts)
    assert whole.tokens.tolist() == FORMS[form][2][1]
    assert whole.positions.tolist() == list(range(len(whole)))


def test_the_stock_system_text_is_the_default_and_one_sentence_mark_comes_first(form, make):
    family = make(form)
    prefix = family.render_prefix([], '')
    assert prefix.tokens.tolist().count(family.tokenizer.token_id('<s>')) == 1
    assert prefix.tokens[0] == family.tokenizer.token_id('<s>')
    assert STOCK in family.tokenizer.decode(prefix.tokens.tolist())


def test_stop_tokens_are_each_models_own(make):
    family = make('internlm2-chat')
    names = ('<|im_end|>', '</s>')
    assert family.stop_tokens == {family.tokenizer.token_id(name) for name in names}
    family = make('phi3-chat')
    names = ('<|end|>', '<|endoftext|>', '</s>')
    assert family.stop_tokens == {family.tokenizer.token_id(name) for name in names}


def test_the_template_of_the_other_model_is_refused(model_folder):
    folder = model_folder(template='phi3-chat')  # beside a tokenizer with ChatML's tokens
    with pytest.raises(ModelFileError, match=r"has no token '<\|"):
        load_family(folder)
