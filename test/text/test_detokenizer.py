"""The streaming law: joined pieces are the full decode, and no piece has a broken character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.text import StreamingDetokenizer

ALPHABETS = st.sampled_from(
    [
        'ab \n',
        '红色盒子机器人',
        '🤖👍🏽👨\u200d👩',
        'e\u0301a\u0308 \u0301',
        '\u2581 x',
        '\ufffd\x00é',
    ]
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=['Cs']), max_size=40),
    ALPHABETS.flatmap(lambda a: st.text(a, max_size=30)),
)


def stream(tokenizer, ids):
    detokenizer = StreamingDetokenizer(tokenizer)
    pieces = [detokenizer.push(token) for token in ids]
    return [*pieces, detokenizer.flush()]


@given(text=TEXTS)
def test_joined_pieces_of_any_text_are_the_text(qwen, text):
    ids = qwen.encode(text)
    assert ''.join(stream(qwen, ids)) == qwen.decode(ids)


@given(ids=st.lists(st.integers(0, 700), max_size=60))
def test_joined_pieces_of_any_ids_are_the_full_decode(qwen, ids):
    """Random ids: broken bytes, template tokens and ids outside the vocabulary among them."""
    assert ''.join(stream(qwen, ids)) == qwen.decode(ids)


@given(data=st.binary(max_size=40))
def test_joined_pieces_of_any_bytes_are_the_full_decode(qwen, data):
    by_byte = {qwen.token_bytes(token): token for token in range(256)}
    ids = [by_byte[bytes([byte])] for byte in data]
    assert ''.join(stream(qwen, ids)) == qwen.decode(ids) == data.decode('utf-8', 'replace')


@given(text=TEXTS.filter(lambda text: '\ufffd' not in text))
def test_no_piece_holds_part_of_a_character(qwen, text):
    assert not any('\ufffd' in piece for piece in stream(qwen, qwen.encode(text)))


def test_a_character_comes_out_with_its_last_byte(qwen):
    ids = qwen.encode('𒀀')
    assert len(ids) == 4
    assert stream(qwen, ids) == ['', '', '', '𒀀', '']


def test_an_answer_cut_inside_a_character_ends_as_the_full_decode_does(qwen):
    ids = qwen.encode('box 𒀀')[:-1]
    assert stream(qwen, ids)[-1] == '\ufffd'
    assert ''.join(stream(qwen, ids)) == qwen.decode(ids) == 'box \ufffd'


def test_leading_blanks_are_kept(qwen):
    ids = [*qwen.encode(' red'), *qwen.encode('  box')]
    assert ''.join(stream(qwen, ids)) == ' red  box'


def test_template_tokens_give_nothing(qwen):
    assert stream(qwen, [qwen.token_id('<|im_end|>'), qwen.token_id('<IMG_CONTEXT>')]) == [
        '',
        '',
        '',
    ]


def test_after_flush_another_answer_may_follow(qwen):
    detokenizer = StreamingDetokenizer(qwen)
    detokenizer.push(qwen.encode('𒀀')[0])
    assert detokenizer.flush() == '\ufffd'
    assert detokenizer.push(qwen.encode('a')[0]) == 'a'
    assert detokenizer.flush() == ''


@given(text=TEXTS)
def test_the_law_holds_for_byte_fallback_vocabularies(llama, text):
    ids = llama.encode(text)
    assert ''.join(stream(llama, ids)) == llama.decode(ids)


@given(ids=st.lists(st.integers(0, 700), max_size=40))
def test_the_law_holds_for_any_ids_of_byte_fallback_vocabularies(llama, ids):
    assert ''.join(stream(llama, ids)) == llama.decode(ids)


@given(ids=st.lists(st.integers(0, 10), max_size=20))
def test_the_law_holds_for_whole_words(words, ids):
    assert ''.join(stream(words, ids)) == words.decode(ids)


def test_byte_fallback_holds_a_run_of_bytes_until_it_ends(llama):
    ids = llama.encode('a𒀀b')
    assert [piece for piece in stream(llama, ids) if piece] == ['a', '𒀀b']


@pytest.mark.parametrize('name', ['qwen', 'llama'])
def test_ordinary_words_come_out_at_once(request, name):
    tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode('There is a red box on the left.')
    assert all(stream(tokenizer, ids)[1:-1])  # the first may be a blank that is left out
