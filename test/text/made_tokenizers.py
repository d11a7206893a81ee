"""Small real tokenizers, trained in a moment; no download."""

from __future__ import annotations

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

SPECIAL = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<img>',
    '</img>',
    '<IMG_CONTEXT>',
)
ORDINARY = ('<tool_call>', '</tool_call>')
"""Added tokens that their file does not mark as special, as Qwen has some."""

# Qwen2's own split, from its tokenizer.json.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)

# ruff: noqa: RUF001  (Chinese punctuation)
CORPUS = (
    'What is in front of the robot? There is a red box on the left and a blue ball behind it.\n',
    'user\nWhat colour is the cone?\nassistant\nThe cone is green.\n system\nYou are a robot.\n',
    'Frame1: Frame2: Frame3: Is the way clear? No, a red box is in the way. Yes, it is clear.\n\n',
    "It's 12 o'clock; don't move!  x = y + 3, (a|b) <p>text</p> im_start im_end |>\n",
    '机器人前面有什么？左边有一个红色的盒子，右边有一个蓝色的球。请描述你看到的场景。\n',
    'カメラの前に何がありますか。赤い箱があります。 상자가 있습니다.\n',
    'Ça va? Où est la boîte? Привет, мир! नमस्ते दुनिया 🤖📷 👍🏽 👨‍👩‍👧 🇫🇷\n',
)


def qwen_like(vocab_size: int = 600) -> Tokenizer:
    """Byte-level BPE with Qwen2's split, normaliser and template tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior='isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ORDINARY])
    return tokenizer


SMOLVLM_SPECIAL = (
    '<|im_start|>',
    '<|im_end|>',
    '<global-img>',
    *(f'<row_{row}_col_{column}>' for row in range(1, 7) for column in range(1, 7)),
    '<fake_token_around_image>',
    '<image>',
    '<end_of_utterance>',
)


def smolvlm_like(vocab_size: int = 600) -> Tokenizer:
    """Byte-level BPE with SmolLM2's split, two line breaks in one token, SmolVLM's own tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((*CORPUS, 'User:\n\nUser: Assistant:\n\n') * 8, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in SMOLVLM_SPECIAL]
    )
    return tokenizer


def llama_like(vocab_size: int = 400) -> Tokenizer:
    """SentencePiece-like BPE: blanks are U+2581, what is lacking is spelt in byte tokens."""
    pieces = [f'<0x{byte:02X}>' for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token='<unk>'))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend('\u2581'), normalizers.Replace(' ', '\u2581')]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size + 256,
        special_tokens=['<unk>', '<s>', '</s>', *pieces],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS[:3] * 4, trainer)
    # Byte tokens are ordinary vocabulary in real files: keep the model, drop the marks.
    model = tokenizer.model
    made = Tokenizer(model)
    made.normalizer = tokenizer.normalizer
    made.decoder = decoders.Sequence(
        [
            decoders.Replace('\u2581', ' '),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(' ', 1, 0),
        ]
    )
    made.add_special_tokens(['<unk>', '<s>', '</s>'])
    return made


def word_level() -> Tokenizer:
    """Whole words, split at blanks: the template tokens are words of the model itself."""
    words = ['<unk>', *SPECIAL, 'what', 'is', 'the', 'box']
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='<unk>')
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(['<unk>', *SPECIAL])
    return tokenizer
