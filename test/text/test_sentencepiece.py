"""SentencePiece models without their library: the same ids as its own, and what is refused.

Models and ids were made by test/support/reference/sentencepiece_golden.py.
"""

import json
from pathlib import Path

import pytest
from support.reference.internvl2_cases import PIECES, internlm2_config, phi3_config

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.text import StreamingDetokenizer, Tokenizer
from edge_vlm_ros.text.sentencepiece import SentencePieceModel

DATA = Path(__file__).parent / 'data'
GOLDEN = json.loads((DATA / 'sentencepiece.json').read_text(encoding='utf-8'))
MODELS = {name: (DATA / f'{name}.model').read_bytes() for name in ('prefix', 'bare')}


def folder(path, model, config=None, **files):
    path.mkdir(exist_ok=True)
    (path / 'tokenizer.model').write_bytes(model)
    files |= {} if config is None else {'tokenizer_config': config}
    for name, content in files.items():
        (path / f'{name}.json').write_text(json.dumps(content), encoding='utf-8')
    return path


@pytest.mark.parametrize(
    ('model', 'key', 'before'),
    [('bare', 'bare', ''), ('prefix', 'prefix_left_out', ''), ('prefix', 'prefix', ' ')],
)
def test_ids_are_those_of_sentencepiece(model, key, before):
    backend = SentencePieceModel.read(MODELS[model]).backend({})
    for text, ids in zip(GOLDEN['texts'], GOLDEN[key], strict=True):
        assert backend.encode(before + text, add_special_tokens=False).ids == ids


@pytest.mark.parametrize('model', ['bare', 'prefix'])
def test_streamed_text_is_the_text(tmp_path, model):
    config = internlm2_config() if model == 'bare' else phi3_config()
    tokenizer = Tokenizer.load(folder(tmp_path, MODELS[model], config))
    for text in ('the theory 🤖 of 日本語', 'Yes, it is clear.', 'a\tb  c'):
        detokenizer = StreamingDetokenizer(tokenizer)
        shown = [detokenizer.push(token) for token in tokenizer.encode(text)]
        assert ''.join(shown) + detokenizer.flush() == text


def test_a_model_that_wants_a_blank_before_a_text_gets_it_unless_it_says_otherwise(tmp_path):
    config = phi3_config()
    bare = Tokenizer.load(folder(tmp_path / 'a', MODELS['prefix'], config))
    del config['legacy']
    old = Tokenizer.load(folder(tmp_path / 'b', MODELS['prefix'], config))
    token = bare.token_id('<img>')
    place = GOLDEN['texts'].index('What is this?')
    assert bare.encode_segment('What is this?', token, None) == GOLDEN['prefix_left_out'][place]
    assert old.encode_segment('What is this?', token, None) == GOLDEN['prefix'][place]
    assert old.encode_segment('What is this?', None, None) == GOLDEN['prefix_left_out'][place]


def test_tokens_that_eat_blanks_do_so(tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path, MODELS['prefix'], phi3_config()))
    user, image = tokenizer.token_id('<|user|>'), tokenizer.token_id('<img>')
    assert tokenizer.encode_segment('\n', user, None) == []
    assert tokenizer.encode_segment('\n What', user, None) == tokenizer.encode('What')
    assert tokenizer.encode_segment('\n', image, None) == tokenizer.encode('\n') != []


def test_template_tokens_are_left_out_of_text(tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path, MODELS['prefix'], phi3_config()))
    end = tokenizer.token_id('<|end|>')
    assert tokenizer.is_special(end)
    assert tokenizer.decode([*tokenizer.encode('Yes'), end]) == 'Yes'


def test_control_tokens_in_a_text_are_text(tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path, MODELS['bare'], internlm2_config()))
    ids = tokenizer.encode('<s></s><unk><|im_end|><img><0x41>')
    assert not {0, 1, 2, 3, 4, PIECES} & set(ids)
    assert tokenizer.decode(ids) == '<s></s><unk><|im_end|><img><0x41>'


def test_older_folders_tell_the_added_tokens_alone(tmp_path):
    added = {'<img>': PIECES + 1, '<|im_end|>': PIECES}
    tokenizer = Tokenizer.load(folder(tmp_path, MODELS['bare'], added_tokens=added))
    assert [tokenizer.token_id(text) for text in added] == [PIECES + 1, PIECES]


@pytest.mark.parametrize(
    ('data', 'complaint'),
    [
        (b'', 'there are no pieces'),
        (MODELS['bare'][:-3], 'cut short'),
        (b'{"version": "1.0"}', 'not a SentencePiece model|cut short|no pieces'),
        (MODELS['bare'][:5000], 'cut short|byte-pair'),
    ],
)
def test_a_damaged_model_is_named(tmp_path, data, complaint):
    with pytest.raises(ModelFileError, match=rf'tokenizer\.model and its added.*({complaint})'):
        Tokenizer.load(folder(tmp_path, data))


@pytest.mark.parametrize(
    'files',
    [
        {'added_tokens': {'<img>': PIECES + 7}},
        {'added_tokens': ['<img>']},
        {'tokenizer_config': {'added_tokens_decoder': {'x': {'content': '<img>'}}}},
        {'tokenizer_config': {'added_tokens_decoder': {'5': {}}}},
    ],
)
def test_added_tokens_that_cannot_be_are_refused(tmp_path, files):
    with pytest.raises(ModelFileError, match=r'make no tokenizer|is no JSON object'):
        Tokenizer.load(folder(tmp_path, MODELS['bare'], **files))
