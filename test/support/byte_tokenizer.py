"""A byte-level tokenizer for tiny models: a token for each byte, and special tokens after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

BYTES: Final = 256
"""Tokens that are one byte each, whose ids are the bytes; the special ones follow."""


def byte_letters() -> list[str]:
    """List the letters that stand for the bytes 0 to 255 in byte-level vocabularies.

    Source: openai/gpt-2, encoder.py, bytes_to_unicode.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(BYTES)]


def tokenizer_json(special_tokens: Sequence[str]) -> dict[str, Any]:
    """Make tokenizer.json."""
    byte_level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True}
    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [
            {
                'id': BYTES + i,
                'content': token,
                'single_word': False,
                'lstrip': False,
                'rstrip': False,
                'normalized': False,
                'special': True,
            }
            for i, token in enumerate(special_tokens)
        ],
        'normalizer': None,
        'pre_tokenizer': {**byte_level, 'use_regex': False},
        'post_processor': None,
        'decoder': {**byte_level, 'use_regex': True},
        'model': {
            'type': 'BPE',
            'dropout': None,
            'unk_token': None,
            'continuing_subword_prefix': None,
            'end_of_word_suffix': None,
            'fuse_unk': False,
            'byte_fallback': False,
            'ignore_merges': False,
            'vocab': {letter: byte for byte, letter in enumerate(byte_letters())},
            'merges': [],
        },
    }
