"""A byte-level tokenizer with InternVL3's template tokens: one token a byte, no merges."""

from __future__ import annotations

from typing import Any

SPECIAL_TOKENS = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<img>',
    '</img>',
    '<IMG_CONTEXT>',
)


def byte_letters() -> list[str]:
    """List the letters that stand for the bytes 0 to 255 in byte-level vocabularies.

    Source: openai/gpt-2, encoder.py, bytes_to_unicode.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(0x100)]


def tokenizer_json() -> dict[str, Any]:
    """Make tokenizer.json; ids 0 to 255 are the bytes, the special tokens follow."""
    vocabulary = {letter: byte for byte, letter in enumerate(byte_letters())}
    added = [
        {
            'id': len(vocabulary) + i,
            'content': token,
            'single_word': False,
            'lstrip': False,
            'rstrip': False,
            'normalized': False,
            'special': True,
        }
        for i, token in enumerate(SPECIAL_TOKENS)
    ]
    byte_level = {
        'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False
    }  # fmt: skip
    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': added,
        'normalizer': None,
        'pre_tokenizer': byte_level,
        'post_processor': None,
        'decoder': byte_level,
        'model': {
            'type': 'BPE',
            'dropout': None,
            'unk_token': None,
            'continuing_subword_prefix': None,
            'end_of_word_suffix': None,
            'fuse_unk': False,
            'byte_fallback': False,
            'vocab': vocabulary,
            'merges': [],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """Make tokenizer_config.json."""
    return {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'eos_token': '<|im_end|>',
        'pad_token': '<|endoftext|>',
        'additional_special_tokens': list(SPECIAL_TOKENS),
        'clean_up_tokenization_spaces': False,
        'model_max_length': 1024,
    }


def vocab_size() -> int:
    """Count bytes and special tokens."""
    return 0x100 + len(SPECIAL_TOKENS)
