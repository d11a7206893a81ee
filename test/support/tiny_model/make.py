"""Write the tiny model: `python -m support.tiny_model.make FOLDER [--seed N]`.

Needs `onnx` beside numpy: part of the test extra.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from support.byte_tokenizer import BYTES, tokenizer_json
from support.internvl_files import SPECIAL_TOKENS, preprocessor_config
from support.tiny_model.config import TinyConfig, model_config
from support.tiny_model.graphs import decoder, embed_tokens, vision_encoder
from support.tiny_model.tokenizer import tokenizer_config, vocab_size
from support.tiny_model.weights import make_weights


def make_tiny_model(folder: Path, config: TinyConfig = TinyConfig()) -> Path:  # noqa: B008
    """Write a whole model folder: config, tokenizer and the three ONNX files; return it."""
    write_texts(folder, config)
    weights = make_weights(config)
    vision_encoder(weights, config).save(folder / 'onnx' / 'vision_encoder.onnx')
    embed_tokens(weights, config).save(folder / 'onnx' / 'embed_tokens.onnx')
    decoder(weights, config).save(folder / 'onnx' / 'decoder_model_merged.onnx')
    return folder


def write_texts(folder: Path, config: TinyConfig) -> None:
    """Write what is not weights."""
    end = BYTES + SPECIAL_TOKENS.index('<|im_end|>')
    texts = {
        'config.json': model_config(config, vocab_size()),
        'generation_config.json': {'eos_token_id': [end], 'do_sample': False},
        'preprocessor_config.json': preprocessor_config(config.image_px, crops=True),
        'tokenizer.json': tokenizer_json(SPECIAL_TOKENS),
        'tokenizer_config.json': tokenizer_config(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / name).write_text(f'{text}\n', encoding='utf-8')


def main() -> None:
    """Write the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--context-tokens', type=int, default=TinyConfig().context_tokens)
    parser.add_argument('--texts-only', action='store_true', help='everything but the weights')
    chosen = parser.parse_args()
    write = write_texts if chosen.texts_only else make_tiny_model
    write(chosen.folder, TinyConfig(seed=chosen.seed, context_tokens=chosen.context_tokens))


if __name__ == '__main__':
    main()
