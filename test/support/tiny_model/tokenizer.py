"""The tiny model's tokenizer: one token a byte, then the special tokens of InternVL3."""

from __future__ import annotations

from typing import Any

from support.byte_tokenizer import BYTES
from support.internvl_files import SPECIAL_TOKENS


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
    return BYTES + len(SPECIAL_TOKENS)
