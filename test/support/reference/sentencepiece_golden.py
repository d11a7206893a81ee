"""Tiny SentencePiece models and what SentencePiece itself makes of texts, for test/text.

    python -m support.reference.sentencepiece_golden test/text/data

writes prefix.model (a space is put before a text, as in Llama's and Phi-3's), bare.model (none, as
in InternLM2's) and sentencepiece.json (texts, their ids, the library's version). Needs the
sentencepiece package; the corpus is our own.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from support.reference.internvl2_cases import (
    INTERNLM2_PROMPTS,
    PHI3_PROMPTS,
    PIECES,
    UNUSED,
    internlm2_config,
    phi3_config,
)

CORPUS = (
    'What is in front of the robot? There is a red box on the left and a blue ball behind it.',
    'user assistant system What colour is the cone? The cone is green. You are a robot.',
    'Frame1: Frame2: Frame3: Is the way clear? No, a red box is in the way. Yes, it is clear.',
    "It's 12 o'clock; don't move!  x = y + 3, (a|b) text im_start im_end",
    '机器人前面有什么 左边有一个红色的盒子 右边有一个蓝色的球 请描述你看到的场景',
    'Ça va? Où est la boîte? Привет, мир! the the the there these them then',
)
TEXTS = (
    'What is this?',
    ' What is  this?',
    'the theory of the other theatre',
    '\nWhat is\n\nthat?\n',
    '机器人前面有一个红色的盒子吗',
    'naïve façade 🤖 👍🏽 日本語',
    '<s> is text </s> too',
    'a\tb\u00a0c',
    '   ',
    'Frame1: ',
)


def _train(*, has_prefix: bool) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=model,
        model_type='bpe',
        vocab_size=PIECES,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name='identity',
        add_dummy_prefix=has_prefix,
        remove_extra_whitespaces=False,
        user_defined_symbols=UNUSED,
        num_threads=1,
    )
    return model.getvalue()


def _ids(model: bytes, *, has_prefix: bool) -> list[list[int]]:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    proto.normalizer_spec.add_dummy_prefix = has_prefix
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    return [processor.encode(text) for text in TEXTS]


def _internlm2_ids(model: bytes, prompt: str) -> list[int]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    entries = internlm2_config()['added_tokens_decoder'].items()
    tokens = {entry['content']: int(token) for token, entry in entries}
    parts = re.split(f'({"|".join(map(re.escape, tokens))})', prompt)
    ids = [[tokens[part]] if part in tokens else processor.encode(part) for part in parts]
    return [tokens['<s>'], *chain.from_iterable(ids)]


def _phi3_ids(model: bytes, prompts: tuple[str, ...]) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'tokenizer.model').write_bytes(model)
        (folder / 'tokenizer_config.json').write_text(json.dumps(phi3_config()))
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return [tokenizer(prompt)['input_ids'] for prompt in prompts]


def main(folder: Path) -> None:
    """Write models and expectations."""
    folder.mkdir(exist_ok=True)
    prefix, bare = _train(has_prefix=True), _train(has_prefix=False)
    (folder / 'prefix.model').write_bytes(prefix)
    (folder / 'bare.model').write_bytes(bare)
    expected = {
        'versions': {name: version(name) for name in ('sentencepiece', 'transformers')},
        'texts': TEXTS,
        'prefix': _ids(prefix, has_prefix=True),
        'prefix_left_out': _ids(prefix, has_prefix=False),
        'bare': _ids(bare, has_prefix=False),
        'internlm2_prompts': [_internlm2_ids(bare, prompt) for prompt in INTERNLM2_PROMPTS],
        'phi3_prompts': _phi3_ids(prefix, PHI3_PROMPTS),
    }
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (folder / 'sentencepiece.json').write_text(text + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
