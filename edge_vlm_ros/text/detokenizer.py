"""Token ids to text while they come, whole characters only.

The law: the joined results of `push` and `flush` are `Tokenizer.decode` of all ids.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edge_vlm_ros.text.tokenizer import Tokenizer

REPLACEMENT = '\N{REPLACEMENT CHARACTER}'
"""What `decode` puts where bytes are not valid UTF-8."""

_BYTE_PIECE = re.compile(r'<0x[0-9A-Fa-f]{2}>')


class StreamingDetokenizer:
    """Turn one answer's tokens into text as they come. Template tokens give nothing.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = _decoder_of(tokenizer)

    def push(self, token: int) -> str:
        """Take the next token; return the text it completes, '' inside a character."""
        if self._tokenizer.is_special(token):
            return ''
        return self._decoder.push(token)

    def flush(self) -> str:
        """End the answer: incomplete bytes come out as U+FFFD. Another answer may follow."""
        text = self._decoder.flush()
        self._decoder = _decoder_of(self._tokenizer)
        return text


class _Decoder(Protocol):
    def push(self, token: int) -> str: ...

    def flush(self) -> str: ...


def _decoder_of(tokenizer: Tokenizer) -> _Decoder:
    return _ByteDecoder(tokenizer) if tokenizer.is_byte_level else _WindowDecoder(tokenizer)


class _ByteDecoder:
    """Byte-level vocabularies: the text is the tokens' bytes, joined; at most three bytes wait."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder('utf-8')('replace')

    def push(self, token: int) -> str:
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        return self._utf8.decode(b'', final=True)


class _WindowDecoder:
    """Other vocabularies (SentencePiece with byte fallback, WordPiece): decode a short window.

    A run of tokens is decoded after the run returned before it, so that what depends on neighbours
    (a leading space, '##' pieces) comes out as in the whole text. A run of byte tokens is one run:
    a bad byte at its end spoils all of it in the full decode.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._given: list[int] = []
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        if not self._tokenizer.piece(token):
            return ''
        is_byte = self._is_byte(token)
        text = self.flush() if not is_byte and self._ends_in_byte() else ''
        self._waiting.append(token)
        return text if is_byte else text + self._give_whole()

    def _is_byte(self, token: int) -> bool:
        return _BYTE_PIECE.fullmatch(self._tokenizer.piece(token)) is not None

    def _ends_in_byte(self) -> bool:
        return bool(self._waiting) and self._is_byte(self._waiting[-1])

    def _give_whole(self) -> str:
        """Return the text of the waiting tokens unless they end inside a character."""
        before = self._tokenizer.decode(self._given)
        text = self._tokenizer.decode(self._given + self._waiting)
        if text.endswith(REPLACEMENT):
            return ''
        self._given, self._waiting = self._waiting, []
        return text[len(before) :]

    def flush(self) -> str:
        before = self._tokenizer.decode(self._given)
        text = self._tokenizer.decode(self._given + self._waiting)
        self._given, self._waiting = self._waiting, []
        return text[len(before) :]
