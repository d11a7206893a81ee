"""A made-up Idefics3 as a Hugging Face folder, for transformers' own server.

`python -m support.reference.tiny_hf FOLDER`. Like `support.tiny_gguf`: random weights but for the
output, so that it says one letter after the other and never loops.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from support.byte_tokenizer import BYTES, tokenizer_json
from support.tiny_gguf.make import EMBEDDING, TEMPLATE, circle

SPECIAL: Final = (
    '<|im_start|>',
    '<|endoftext|>',
    '<end_of_utterance>',
    '<fake_token_around_image>',
    '<image>',
    '<global-img>',
)
WIDTH: Final = 64
IMAGE_PX: Final = 32
IMAGE_TOKENS: Final = 4


def make_tiny_hf(folder: Path) -> Path:
    """Write the folder; return it."""
    torch.manual_seed(1)
    ids = {text: BYTES + number for number, text in enumerate(SPECIAL)}
    model = Idefics3ForConditionalGeneration(_config(ids))
    _make_talk(model)
    model.generation_config.eos_token_id = ids['<end_of_utterance>']
    model.generation_config.pad_token_id = ids['<|endoftext|>']
    model.save_pretrained(folder)
    _processor(folder).save_pretrained(folder)
    return folder


def _config(ids: dict[str, int]) -> Idefics3Config:
    return Idefics3Config(
        text_config={
            'model_type': 'llama',
            'hidden_size': WIDTH,
            'intermediate_size': 128,
            'num_hidden_layers': 2,
            'num_attention_heads': 4,
            'num_key_value_heads': 2,
            'vocab_size': BYTES + len(SPECIAL),
            'max_position_embeddings': 8192,
            'pad_token_id': ids['<|endoftext|>'],
            'bos_token_id': ids['<|im_start|>'],
            'eos_token_id': ids['<end_of_utterance>'],
        },
        vision_config={
            'hidden_size': 32,
            'intermediate_size': 64,
            'num_hidden_layers': 2,
            'num_attention_heads': 2,
            'image_size': IMAGE_PX,
            'patch_size': 8,
        },
        image_token_id=ids['<image>'],
        scale_factor=2,
        tie_word_embeddings=False,
    )


def _make_talk(model: Any) -> None:
    said = circle(np.random.default_rng(1))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
        embeddings = model.get_input_embeddings().weight
        embeddings.mul_(EMBEDDING)
        output = model.get_output_embeddings().weight
        output.zero_()
        for token, following in zip(said, [*said[1:], said[0]], strict=True):
            output[following] = embeddings[token]


def _processor(folder: Path) -> Any:
    path = folder / 'tokenizer.json'
    path.write_text(json.dumps(tokenizer_json(SPECIAL)), encoding='utf-8')
    fast: Any = PreTrainedTokenizerFast  # Untyped.
    tokenizer = fast(
        tokenizer_file=str(path),
        bos_token='<|im_start|>',
        eos_token='<end_of_utterance>',
        pad_token='<|endoftext|>',
        extra_special_tokens=['<fake_token_around_image>', '<image>', '<global-img>'],
    )
    tokenizer.chat_template = TEMPLATE
    images = Idefics3ImageProcessorPil(
        size={'longest_edge': IMAGE_PX},
        max_image_size={'longest_edge': IMAGE_PX},
        do_image_splitting=False,
    )
    return Idefics3Processor(
        image_processor=images,
        tokenizer=tokenizer,
        image_seq_len=IMAGE_TOKENS,
        chat_template=TEMPLATE,
    )


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    print(make_tiny_hf(parser.parse_args().folder))


if __name__ == '__main__':
    main()
