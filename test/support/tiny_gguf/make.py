"""Write the made-up model: `python -m support.tiny_gguf.make FOLDER [--seed N]`.

A `llama` of two layers and an `idefics3` vision tower of two, with random weights but for the
output: after each letter the model is sure of another one, so that it talks without end in letters
that can be shown, and never in a loop as short as a broken model's. What it is shown moves its
first letters. Needs `gguf` beside numpy: part of the test extra.

Sources: llama.cpp, tools/mtmd/clip.cpp and gguf-py/gguf/constants.py (names of tensors and keys).
llama.cpp wants `\\n\\n` as one token: without it every prompt with an image ends in 400.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final, TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

from support.byte_tokenizer import BYTES, byte_letters

WIDTH: Final = 64
LAYERS: Final = 2
HEADS: Final = 4
KV_HEADS: Final = 2
HEAD: Final = 16
INNER: Final = 128
VOCABULARY: Final = 384
CONTEXT: Final = 32_768
EMBEDDING: Final = 12
"""A token's own length, times what attention adds to it: it mostly decides what follows."""

EYE_WIDTH: Final = 32
EYE_INNER: Final = 64
EYE_PX: Final = 32
PATCH_PX: Final = 8
SCALE: Final = 2

CONTROLS: Final = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<end_of_utterance>',
    '<fake_token_around_image>',
    '<image>',
    '<global-img>',
)
FIRST_CONTROL: Final = BYTES + 1
"""After the bytes and the token of two line ends."""
END: Final = FIRST_CONTROL + CONTROLS.index('<end_of_utterance>')

TEMPLATE: Final = (
    '<|im_start|>{% for message in messages %}{{ message.role | capitalize }}: '
    '{% if message.content is string %}{{ message.content }}{% else %}'
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}"
    '<image>{% endif %}{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}'
    '{% if add_generation_prompt %}Assistant:{% endif %}'
)

Weights: TypeAlias = NDArray[np.floating[Any]]


def make_tiny_gguf(folder: Path, seed: int = 1) -> tuple[Path, Path]:
    """Write both files; return the text model's and the vision tower's."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    text, eyes = folder / 'text.gguf', folder / 'mmproj.gguf'
    _write_text(text, rng)
    _write_eyes(eyes, rng)
    return text, eyes


def circle(rng: np.random.Generator) -> list[int]:
    """Return the tokens that follow one another, the first one the last one: what it can say."""
    letters = b' abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'
    return [int(letter) for letter in rng.permutation([*letters])]


def _tokens() -> tuple[list[str], list[int]]:
    letters = byte_letters()
    texts = [*letters, letters[10] * 2, *CONTROLS]
    kinds = [gguf.TokenType.NORMAL] * FIRST_CONTROL + [gguf.TokenType.CONTROL] * len(CONTROLS)
    spare = VOCABULARY - len(texts)
    texts += [f'[PAD{number}]' for number in range(spare)]
    return texts, [int(kind) for kind in [*kinds, *[gguf.TokenType.UNUSED] * spare]]


def _write_text(path: Path, rng: np.random.Generator) -> None:
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_name('tiny')
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer)
    for name, weights in _text_weights(rng).items():
        writer.add_tensor(name, weights)
    _finish(writer)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    texts, kinds = _tokens()
    line_end = byte_letters()[10]
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('smollm')
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([f'{line_end} {line_end}'])
    writer.add_bos_token_id(FIRST_CONTROL)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(FIRST_CONTROL)
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(TEMPLATE)


def _text_weights(rng: np.random.Generator) -> dict[str, Weights]:
    embeddings = EMBEDDING * _random(rng, VOCABULARY, WIDTH)
    output = np.zeros((VOCABULARY, WIDTH), np.float32)
    said = circle(rng)
    for token, following in zip(said, [*said[1:], said[0]], strict=True):
        output[following] = embeddings[token]
    found: dict[str, Weights] = {
        'token_embd.weight': embeddings,
        'output.weight': output / 4,
        'output_norm.weight': np.ones(WIDTH, np.float32),
    }
    for layer in range(LAYERS):
        name = f'blk.{layer}.'
        found |= {
            f'{name}attn_norm.weight': np.ones(WIDTH, np.float32),
            f'{name}ffn_norm.weight': np.ones(WIDTH, np.float32),
            f'{name}attn_q.weight': _random(rng, HEADS * HEAD, WIDTH),
            f'{name}attn_k.weight': _random(rng, KV_HEADS * HEAD, WIDTH),
            f'{name}attn_v.weight': _random(rng, KV_HEADS * HEAD, WIDTH),
            f'{name}attn_output.weight': _random(rng, WIDTH, HEADS * HEAD),
            f'{name}ffn_gate.weight': _random(rng, INNER, WIDTH) / 4,
            f'{name}ffn_up.weight': _random(rng, INNER, WIDTH) / 4,
            f'{name}ffn_down.weight': _random(rng, WIDTH, INNER) / 4,
        }
    return found


def _write_eyes(path: Path, rng: np.random.Generator) -> None:
    writer = gguf.GGUFWriter(path, 'clip')
    writer.add_type('mmproj')
    writer.add_bool('clip.has_vision_encoder', val=True)
    writer.add_string('clip.projector_type', 'idefics3')
    writer.add_bool('clip.use_gelu', val=True)
    numbers = {
        'image_size': EYE_PX,
        'patch_size': PATCH_PX,
        'embedding_length': EYE_WIDTH,
        'feed_forward_length': EYE_INNER,
        'projection_dim': WIDTH,
        'block_count': LAYERS,
        'attention.head_count': 2,
        'projector.scale_factor': SCALE,
        'preproc_image_size': 4 * EYE_PX,
    }
    for name, number in numbers.items():
        writer.add_uint32(f'clip.vision.{name}', number)
    writer.add_float32('clip.vision.attention.layer_norm_epsilon', 1e-6)
    writer.add_array('clip.vision.image_mean', [0.5] * 3)
    writer.add_array('clip.vision.image_std', [0.5] * 3)
    writer.add_uint32('general.file_type', 0)
    for name, weights in _eye_weights(rng).items():
        writer.add_tensor(name, weights)
    _finish(writer)


def _eye_weights(rng: np.random.Generator) -> dict[str, Weights]:
    places = (EYE_PX // PATCH_PX) ** 2
    found: dict[str, Weights] = {
        'v.patch_embd.weight': _random(rng, EYE_WIDTH, 3, PATCH_PX, PATCH_PX),
        'v.patch_embd.bias': _random(rng, EYE_WIDTH),
        'v.position_embd.weight': _random(rng, places, EYE_WIDTH),
        'v.post_ln.weight': np.ones(EYE_WIDTH, np.float32),
        'v.post_ln.bias': np.zeros(EYE_WIDTH, np.float32),
        'mm.model.fc.weight': 2 * _random(rng, WIDTH, EYE_WIDTH * SCALE**2),
    }
    shapes = {
        'attn_q': (EYE_WIDTH, EYE_WIDTH),
        'attn_k': (EYE_WIDTH, EYE_WIDTH),
        'attn_v': (EYE_WIDTH, EYE_WIDTH),
        'attn_out': (EYE_WIDTH, EYE_WIDTH),
        'ffn_up': (EYE_INNER, EYE_WIDTH),
        'ffn_down': (EYE_WIDTH, EYE_INNER),
    }
    for layer in range(LAYERS):
        name = f'v.blk.{layer}.'
        for part, shape in shapes.items():
            found[f'{name}{part}.weight'] = _random(rng, *shape)
            found[f'{name}{part}.bias'] = np.zeros(shape[0], np.float32)
        for part in ('ln1', 'ln2'):
            found[f'{name}{part}.weight'] = np.ones(EYE_WIDTH, np.float32)
            found[f'{name}{part}.bias'] = np.zeros(EYE_WIDTH, np.float32)
    return found


def _random(rng: np.random.Generator, *shape: int) -> Weights:
    """Return random numbers that keep the length of what they are multiplied with, about."""
    inputs = int(np.prod(shape[1:])) or 1
    return np.asarray(rng.normal(0, inputs**-0.5, shape), np.float32)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the model into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=1)
    arguments = parser.parse_args()
    for path in make_tiny_gguf(arguments.folder, arguments.seed):
        print(path, path.stat().st_size)


if __name__ == '__main__':
    main()
