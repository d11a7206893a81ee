"""Tokenizer folders in the published forms of InternVL2 2B and 4B, tiny, and prompts for them.

Added tokens, their places and flags as in OpenGVLab/InternVL2-2B (InternLM2: unused pieces of
the model are renamed) and InternVL2-4B (Phi-3: tokens after the model's; those of the turns eat
the spaces that follow them), tokenizer_config.json.
"""

from __future__ import annotations

from typing import Any

PIECES = 460
"""Of the tiny models."""

UNUSED = ('[UNUSED_TOKEN_0]', '[UNUSED_TOKEN_1]')
"""Pieces 3 and 4, kept free for renaming as some of InternLM2's are."""

SYSTEM = 'You are a robot.'
_VISION = ('<img>', '</img>', '<IMG_CONTEXT>')
_PHI3 = ('<|endoftext|>', '<|assistant|>', '<|placeholder1|>', '<|system|>', '<|end|>', '<|user|>')

_IMAGE = '<img><IMG_CONTEXT><IMG_CONTEXT></img>\n'
INTERNLM2_PROMPTS = (
    (
        f'<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n{_IMAGE}What is this?<|im_end|>'
        '<|im_start|>assistant\n'
    ),
    (
        f'<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\nWho are you?<|im_end|>'
        '<|im_start|>assistant\nA robot.<|im_end|><|im_start|>user\n机器人前面<|im_end|>'
        '<|im_start|>assistant\n'
    ),
)
PHI3_PROMPTS = (
    f'<|system|>\n{SYSTEM}<|end|><|user|>\n{_IMAGE}What is this?<|end|><|assistant|>\n',
    (
        f'<|system|>\n{SYSTEM}<|end|><|user|>\nWho are you?<|end|><|assistant|>\nA robot.<|end|>'
        '<|user|>\n机器人前面<|end|><|assistant|>\n'
    ),
)


def _entry(content: str, *, rstrip: bool = False) -> dict[str, Any]:
    return {
        'content': content,
        'lstrip': False,
        'normalized': False,
        'rstrip': rstrip,
        'single_word': False,
        'special': True,
    }


def internlm2_config() -> dict[str, Any]:
    """Return tokenizer_config.json for bare.model."""
    tokens = {3: '<|im_end|>', 4: '<|im_start|>'}
    tokens |= dict(enumerate(('<unk>', '<s>', '</s>')))
    tokens |= dict(enumerate(_VISION, PIECES))
    return {
        'added_tokens_decoder': {str(token): _entry(text) for token, text in tokens.items()},
        'auto_map': {'AutoTokenizer': ['tokenization_internlm2.InternLM2Tokenizer', None]},
        'tokenizer_class': 'InternLM2Tokenizer',
    }


def phi3_config() -> dict[str, Any]:
    """Return tokenizer_config.json for prefix.model."""
    tokens = dict(enumerate(('<unk>', '<s>', '</s>')))
    tokens |= dict(enumerate((*_PHI3, *_VISION), PIECES))
    eaters = {'<|assistant|>', '<|system|>', '<|end|>', '<|user|>'}
    return {
        'add_bos_token': True,
        'add_eos_token': False,
        'added_tokens_decoder': {
            str(token): _entry(text, rstrip=text in eaters) for token, text in tokens.items()
        },
        'bos_token': '<s>',
        'eos_token': '</s>',
        'unk_token': '<unk>',
        'legacy': False,
        'clean_up_tokenization_spaces': False,
        'tokenizer_class': 'LlamaTokenizer',
    }
