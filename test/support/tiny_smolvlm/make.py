"""Write the tiny SmolVLM: `python -m support.tiny_smolvlm.make FOLDER [--seed N]`.

Needs `onnx` beside numpy: part of the test extra.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from support.byte_tokenizer import BYTES, tokenizer_json
from support.tiny_model.graphs import decoder, embed_tokens
from support.tiny_smolvlm.config import (
    SPECIAL_TOKENS,
    TinySmolVlmConfig,
    model_config,
    preprocessor_config,
)
from support.tiny_smolvlm.graphs import vision_encoder
from support.tiny_smolvlm.weights import make_weights

_TWO_BREAKS = BYTES
"""Two line breaks in one token, as the real vocabulary has them; special tokens follow."""
VOCABULARY = BYTES + 1 + len(SPECIAL_TOKENS)
DEFAULTS = TinySmolVlmConfig()


def token_id(token: str) -> int:
    """Return the id of a special token."""
    return BYTES + 1 + SPECIAL_TOKENS.index(token)


def make_tiny_smolvlm(folder: Path, config: TinySmolVlmConfig = DEFAULTS) -> Path:
    """Write a whole model folder: config, tokenizer and the three ONNX files; return it."""
    write_texts(folder, config)
    weights = make_weights(config, config.vocabulary or VOCABULARY, token_id('<image>'))
    weights['language_model.lm_head.weight'][VOCABULARY:] = 0
    vision_encoder(weights, config).save(folder / 'onnx' / 'vision_encoder.onnx')
    embed_tokens(weights, config).save(folder / 'onnx' / 'embed_tokens.onnx')
    decoder(weights, config).save(folder / 'onnx' / 'decoder_model_merged.onnx')
    return folder


def write_texts(folder: Path, config: TinySmolVlmConfig = DEFAULTS) -> None:
    """Write what is not weights."""
    texts = {
        'config.json': model_config(config, config.vocabulary or VOCABULARY, token_id('<image>')),
        'generation_config.json': {'eos_token_id': token_id('<end_of_utterance>')},
        'preprocessor_config.json': preprocessor_config(config),
        'tokenizer.json': _tokenizer(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / name).write_text(f'{text}\n', encoding='utf-8')


def _tokenizer() -> dict[str, Any]:
    made = tokenizer_json(('<two line breaks>', *SPECIAL_TOKENS))
    del made['added_tokens'][0]  # Its id is that of the merged token.
    line_break = next(letter for letter, byte in made['model']['vocab'].items() if byte == 10)
    made['model']['vocab'][2 * line_break] = _TWO_BREAKS
    made['model']['merges'] = [[line_break, line_break]]
    return made


def main() -> None:
    """Write the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=0)
    chosen = parser.parse_args()
    make_tiny_smolvlm(chosen.folder, TinySmolVlmConfig(seed=chosen.seed))


if __name__ == '__main__':
    main()
