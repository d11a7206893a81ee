"""Learn the demo model's tokenizer: byte-level BPE with Qwen2's way of cutting words."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.internvl_files import SPECIAL_TOKENS
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from edge_vlm_ros.demo.world import COLOURS, PLACES, SHAPES
from tools.demo_model.outside import outside_question
from tools.demo_model.scenes import MOTIONS
from tools.demo_model.wordings import NUMBERS, OUTSIDE, PLURALS, WORDINGS

VOCABULARY: Final = 1024
_CUT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def corpus(seed: int = 3) -> Iterator[str]:
    """Yield the text of the world, often, and general questions, less often."""
    rng = random.Random(seed)
    slots = {
        'd': ('left', 'right'),
        'c': COLOURS,
        's': SHAPES,
        'o': SHAPES,
        'S': tuple(PLURALS.values()),
    }
    for _ in range(40):
        for wordings in WORDINGS.values():
            for wording in wordings:
                yield wording.format(**{k: rng.choice(v) for k, v in slots.items()})
        yield OUTSIDE
    for colour in COLOURS * 20:
        for shape in SHAPES:
            thing = f'{colour} {shape}'
            yield f'A {thing} {rng.choice(PLACES)}, a {thing} and a {thing}.'
            yield f'There is no {thing}. There is no {colour} thing. {colour.capitalize()}.'
            yield f'The {thing} is moving {rng.choice(MOTIONS[1:5])}. Nothing is moving.'
            yield f'No, a {thing} is in the way. Yes. No. Nothing.'
            yield f'The camera is turning {rng.choice(("left", "right"))}.'
            yield ' '.join(p.capitalize() + '.' for p in PLACES)
            yield ' '.join(NUMBERS)
            yield 'user\nassistant\nFrame1: Frame2: Frame3: system\n'
    for _ in range(6000):
        yield outside_question(rng)


def learn() -> Tokenizer:
    """Learn the tokenizer; the same every time."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CUT), behavior='isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and the files transformers reads beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    names = {'eos_token': '<|im_end|>', 'pad_token': '<|endoftext|>'}
    added = {
        str(tokenizer.token_to_id(t)): {
            'content': t,
            'lstrip': False,
            'normalized': False,
            'rstrip': False,
            'single_word': False,
            'special': True,
        }
        for t in SPECIAL_TOKENS
    }
    config = {
        'add_bos_token': False,
        'add_prefix_space': False,
        'added_tokens_decoder': added,
        'additional_special_tokens': list(SPECIAL_TOKENS[1:]),
        'bos_token': None,
        'chat_template': CHAT_TEMPLATE,
        'clean_up_tokenization_spaces': False,
        **names,
        'errors': 'replace',
        'model_max_length': 1024,
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'unk_token': None,
    }
    special = {**names, 'additional_special_tokens': list(SPECIAL_TOKENS[1:])}
    for file, value in (('tokenizer_config', config), ('special_tokens_map', special)):
        (folder / f'{file}.json').write_text(json.dumps(value, indent=2) + '\n')


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('build/demo_model'))
    save(learn(), parser.parse_args().out)


if __name__ == '__main__':
    main()
