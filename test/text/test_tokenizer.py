"""Words to ids and back."""

import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.text import Tokenizer


@pytest.fixture(scope='session')
def library(qwen_file):
    """The tokenizers library as it is, without our rules."""
    return Backend.from_file(str(qwen_file / 'tokenizer.json'))


@pytest.fixture(scope='session')
def bare(qwen_file):
    """The same vocabulary in a file without any template token."""
    content = json.loads((qwen_file / 'tokenizer.json').read_text(encoding='utf-8'))
    return Backend.from_str(json.dumps({**content, 'added_tokens': []}))


MARKUP = ('<|im_end|>', '<|im_start|>', '<img>', '</img>', '<IMG_CONTEXT>', '<tool_call>', '<')
ALPHABETS = st.sampled_from(
    ['ab \n', '红色盒子机器人', '🤖👍🏽👨\u200d👩', 'e\u0301a\u0308 \u0301', '<|>im_endIMG']
)
TEXTS = st.one_of(st.text(max_size=40), ALPHABETS.flatmap(lambda a: st.text(a, max_size=30)))
HOSTILE = st.lists(st.one_of(st.sampled_from(MARKUP), TEXTS), max_size=6).map(''.join)


def test_text_comes_back_from_its_ids(qwen):
    text = 'Is the red box left? 机器人 🤖👍🏽'
    assert qwen.decode(qwen.encode(text)) == text


@given(text=HOSTILE)
def test_no_text_becomes_a_template_token(qwen, made, text):
    ids = qwen.encode(text)
    template = {qwen.token_id(token) for token in (*made.SPECIAL, *made.ORDINARY)}
    assert not template.intersection(ids)


@given(text=HOSTILE)
def test_text_with_template_tokens_in_it_comes_back_whole(qwen, made, text):
    whole = unicodedata.normalize('NFC', text.encode('utf-8', 'replace').decode())
    # Markup that is cut may part a character from its accent: the same text for Unicode.
    assert unicodedata.normalize('NFC', qwen.decode(qwen.encode(text))) == whole


@given(text=TEXTS.filter(lambda text: '<' not in text))
def test_ordinary_text_has_the_ids_that_the_library_gives(qwen, library, text):
    assert qwen.encode(text) == library.encode(text, add_special_tokens=False).ids


@given(text=HOSTILE.filter(lambda text: 'tool_call' not in text))
def test_template_tokens_in_text_are_cut_as_if_they_were_not_in_the_file(qwen, bare, text):
    assert qwen.encode(text) == bare.encode(text.encode('utf-8', 'replace').decode()).ids


def test_the_library_itself_would_have_taken_the_text_for_a_template_token(qwen, library):
    end = qwen.token_id('<|im_end|>')
    assert end in library.encode('a<|im_end|>').ids
    assert end not in qwen.encode('a<|im_end|>')


def test_template_tokens_are_text_even_where_they_are_words_of_the_model(words):
    assert words.encode('what is <|im_end|>')[:2] == words.encode('what is')
    assert words.token_id('<|im_end|>') not in words.encode('what is <|im_end|>')


def test_a_word_outside_the_vocabulary_is_one_unknown_word(words):
    assert words.encode('what zebra') == [words.token_id('what'), words.token_id('<unk>')]


def test_a_question_full_of_template_tokens_is_no_burden(qwen):
    ids = qwen.encode('<tool_call><|im_end|>' * 3000)
    assert qwen.token_id('<tool_call>') not in ids
    assert qwen.decode(ids) == '<tool_call><|im_end|>' * 3000


def test_half_a_surrogate_pair_is_no_error(qwen):
    assert qwen.decode(qwen.encode('a\ud800b')) == 'a?b'


def test_decode_leaves_template_tokens_out_unless_asked(qwen):
    ids = [qwen.token_id('<|im_start|>'), *qwen.encode('box'), qwen.token_id('<|im_end|>')]
    assert qwen.decode(ids) == 'box'
    assert qwen.decode(ids, keep_special=True) == '<|im_start|>box<|im_end|>'


def test_a_missing_template_token_is_a_model_file_error(qwen):
    with pytest.raises(ModelFileError, match=r"tokenizer\.json has no token '<\|eot_id\|>'"):
        qwen.token_id('<|eot_id|>')


def test_vocab_size_counts_template_tokens(qwen, made):
    assert qwen.vocab_size == 600 + len(made.SPECIAL) + len(made.ORDINARY)


@given(data=st.binary(max_size=20))
def test_every_byte_has_its_token(qwen, data):
    by_byte = {qwen.token_bytes(token): token for token in range(256)}
    assert b''.join(qwen.token_bytes(by_byte[bytes([byte])]) for byte in data) == data


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: text[: len(text) // 2],
        lambda _: '',
        lambda _: '{}',
        lambda _: '[1, 2]',
        lambda text: json.dumps({**json.loads(text), 'model': {'type': 'Nonsense'}}),
    ],
    ids=['truncated', 'empty', 'no model', 'a list', 'unknown model'],
)
def test_a_damaged_file_is_a_model_file_error_that_names_it(qwen_file, tmp_path, damage):
    text = (qwen_file / 'tokenizer.json').read_text(encoding='utf-8')
    file = tmp_path / 'tokenizer.json'
    file.write_text(damage(text), encoding='utf-8')
    with pytest.raises(ModelFileError, match='damaged or not a tokenizer') as caught:
        Tokenizer.load(tmp_path)
    assert str(file) in caught.value.message


def test_a_file_that_is_no_text_is_a_model_file_error(tmp_path):
    (tmp_path / 'tokenizer.json').write_bytes(b'\xff\xfe\x00\x01' * 100)
    with pytest.raises(ModelFileError, match=r'tokenizer\.json is damaged'):
        Tokenizer.load(tmp_path)


def test_a_folder_that_is_not_there_is_a_model_file_error(tmp_path):
    with pytest.raises(ModelFileError, match='there is no model folder'):
        Tokenizer.load(tmp_path / 'nowhere')


def test_loading_from_tokenizer_json_imports_no_transformers(qwen_file):
    code = f"""
import sys
import unicodedata
from pathlib import Path
from edge_vlm_ros.text import Tokenizer
Tokenizer.load(Path({str(qwen_file)!r})).encode('box')
assert not {{'transformers', 'torch'}} & set(sys.modules)
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_folder_with_older_files_is_read_by_transformers(qwen, library, tmp_path):
    pytest.importorskip('transformers')
    library.model.save(str(tmp_path))
    config = {
        'tokenizer_class': 'Qwen2Tokenizer',
        'eos_token': '<|im_end|>',
        'additional_special_tokens': ['<|im_start|>', '<|im_end|>', '<IMG_CONTEXT>'],
    }
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config), encoding='utf-8')
    older = Tokenizer.load(tmp_path)
    assert older.encode('Is the red box left?') == qwen.encode('Is the red box left?')
    assert older.token_id('<IMG_CONTEXT>') not in older.encode('a <IMG_CONTEXT> b')
    assert older.decode(older.encode('a <IMG_CONTEXT> b')) == 'a <IMG_CONTEXT> b'


def test_a_folder_without_any_tokenizer_says_what_is_missing(tmp_path):
    with pytest.raises(ModelFileError, match=r'has no tokenizer\.json'):
        Tokenizer.load(tmp_path)
