"""SentencePiece models (`tokenizer.model`) made into a tokenizer, without their own library.

InternVL2's folders hold no tokenizer.json: the 2B model has a tokenizer.model and a class of its
own that transformers would run as downloaded code, the 4B model a tokenizer.model and Llama's
class. Both are byte-pair models, which the tokenizers library can run once its merges are listed:
SentencePiece joins the two neighbours that make the piece of the highest score, so every way to
split a piece into two others is a merge, ranked by the piece's score.

The file is a protocol buffer, read here field by field.

Source: google/sentencepiece, src/sentencepiece_model.proto and src/bpe_model.cc;
huggingface/transformers, convert_slow_tokenizer.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from edge_vlm_ros.core import TOKENIZER_BYTES, ModelFileError, read_bounded, read_json_file
from edge_vlm_ros.core.protobuf import message_fields
from edge_vlm_ros.text.native_errors import as_damaged

SENTENCEPIECE_FILE = 'tokenizer.model'
SPACE_MARK = '\u2581'
"""What stands for a space in pieces."""

# Values of sentencepiece_model.proto.
_NORMAL, _UNKNOWN, _USER_DEFINED = 1, 2, 4
_BYTE_PAIR = 2
# Every cut of every piece is tried. The published models have up to 20 million; a single piece as
# long as the file would take hours.
_MOST_COST = 1 << 28


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a tokenizer.model holds.

    Attributes:
        pieces: In the order of their ids: text, score, type.
        model_type: 2 = byte pairs.
        has_prefix: Whether a space is put before the first word of a text.
        collapses_spaces: Whether runs of spaces become one.
        charsmap: Rules of a Unicode normalisation; empty = none.
    """

    pieces: tuple[tuple[str, float, int], ...]
    model_type: int
    has_prefix: bool
    collapses_spaces: bool
    charsmap: bytes

    @staticmethod
    def read(data: bytes) -> SentencePieceModel:
        """Read the file's bytes.

        Raises:
            ValueError: The bytes are not a SentencePiece model.
        """
        fields = list(_fields(data))
        trainer = dict(_fields(b''.join(_bytes(v) for k, v in fields if k == 2)))
        normaliser = dict(_fields(b''.join(_bytes(v) for k, v in fields if k == 3)))
        pieces = tuple(_piece(_bytes(value)) for key, value in fields if key == 1)
        if not pieces:
            raise ValueError('there are no pieces')
        cost = sum(len(text) ** 2 for text, _, _ in pieces)
        if cost > _MOST_COST:
            raise ValueError(
                f'pieces too long: squared, {cost} letters; the limit is {_MOST_COST}'
            )
        return SentencePieceModel(
            pieces,
            model_type=_whole(trainer.get(3, 1)),
            has_prefix=bool(normaliser.get(3, 1)),
            collapses_spaces=bool(normaliser.get(4, 1)),
            charsmap=_bytes(normaliser.get(2, b'')),
        )

    def backend(self, added: dict[int, AddedToken]) -> Tokenizer:
        """Make a tokenizer that puts no space before a text.

        Args:
            added: Tokens besides the pieces, or in place of some, by id.

        Raises:
            ValueError: The model is not a byte-pair model that keeps spaces, or its ids have gaps.
        """
        if self.model_type != _BYTE_PAIR or self.collapses_spaces:
            raise ValueError('only byte-pair models that keep spaces are supported')
        texts = [text for text, _, _ in self.pieces]
        for token, content in added.items():
            if token < len(texts):
                texts[token] = content.content
        vocabulary = {text: token for token, text in enumerate(texts)}
        unknown = next((text for text, _, kind in self.pieces if kind == _UNKNOWN), None)
        backend = Tokenizer(
            models.BPE(
                vocabulary,
                self._merges(vocabulary, added),
                unk_token=unknown,
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        rules: list[Any] = [normalizers.Replace(' ', SPACE_MARK)]
        if self.charsmap:
            rules.insert(0, normalizers.Precompiled(self.charsmap))
        backend.normalizer = normalizers.Sequence(rules)
        steps = [decoders.Replace(SPACE_MARK, ' '), decoders.ByteFallback(), decoders.Fuse()]
        if self.has_prefix:
            steps.append(decoders.Strip(' ', 1, 0))
        backend.decoder = decoders.Sequence(steps)
        for token in sorted(added):
            add = backend.add_special_tokens if added[token].special else backend.add_tokens
            add([added[token]])
            if backend.token_to_id(added[token].content) != token:
                raise ValueError(f'no id {token} for {added[token].content!r}: ids have gaps')
        return backend

    def _merges(
        self, vocabulary: dict[str, int], added: dict[int, AddedToken]
    ) -> list[tuple[str, str]]:
        """List the pairs that make a piece, of the highest score first."""
        scores = {
            text: score
            for token, (text, score, kind) in enumerate(self.pieces)
            if kind in {_NORMAL, _USER_DEFINED} and token not in added
        }
        found = [
            (-score, vocabulary[text[:cut]], text[:cut], text[cut:])
            for text, score in scores.items()
            for cut in range(1, len(text))
            if text[:cut] in scores and text[cut:] in scores
        ]
        return [(left, right) for _, _, left, right in sorted(found)]


@dataclass(frozen=True, slots=True)
class LoadedSentencePiece:
    """A tokenizer made from a model folder.

    Attributes:
        backend: The tokenizer; it puts no space before a text.
        segment_prefix: What the published tokenizer puts before each run of text: '' or ' '.
    """

    backend: Tokenizer
    segment_prefix: str


def load_sentencepiece(folder: Path) -> LoadedSentencePiece:
    """Make a tokenizer from tokenizer.model, tokenizer_config.json and added_tokens.json.

    Raises:
        ModelFileError: A file is damaged or of a kind that is not supported.
    """
    file = folder / SENTENCEPIECE_FILE
    data = read_bounded(file, TOKENIZER_BYTES)
    with as_damaged(f'{file} and its added tokens make no tokenizer'):
        model = SentencePieceModel.read(data)
        config = _read_json(folder / 'tokenizer_config.json')
        added = _added_tokens(config, _read_json(folder / 'added_tokens.json'))
        backend = model.backend(added)
    # With `legacy` false, Llama's class leaves the space out after template tokens, and every text
    # of a prompt follows one. Source: transformers 4, tokenization_llama.py, `legacy`.
    is_modern = config.get('legacy') is False
    return LoadedSentencePiece(backend, ' ' if model.has_prefix and not is_modern else '')


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    values = read_json_file(file)
    if not isinstance(values, dict):
        raise ModelFileError(f'{file} is no JSON object')
    return values


def _added_tokens(config: dict[str, Any], plain: dict[str, Any]) -> dict[int, AddedToken]:
    """Read the added tokens: all about them, or (older folders) only their ids."""
    found = {
        int(token): AddedToken(text, normalized=False, special=True)
        for text, token in plain.items()
    }
    for token, entry in config.get('added_tokens_decoder', {}).items():
        found[int(token)] = AddedToken(
            entry['content'],
            lstrip=bool(entry.get('lstrip', False)),
            rstrip=bool(entry.get('rstrip', False)),
            normalized=False,
            special=bool(entry.get('special', True)),
        )
    return found


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    (score,) = struct.unpack('<f', _bytes(fields.get(2, b'\0\0\0\0')))
    return _bytes(fields.get(1, b'')).decode('utf-8'), score, _whole(fields.get(3, _NORMAL))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    for number, value in message_fields(data, 'a SentencePiece model'):
        yield number, value if isinstance(value, int) else bytes(value)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError('not a SentencePiece model')  # noqa: TRY004 (of the file)
    return value


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError('not a SentencePiece model')  # noqa: TRY004 (of the file)
    return value
