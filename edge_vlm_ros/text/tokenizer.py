"""Text to token ids and back, with the model's own tokenizer.

Two kinds of strings never mix here. Template tokens (`<|im_end|>`, `<IMG_CONTEXT>`) are asked for
one by one, by `token_id`. Everything a person wrote goes through `encode`, which knows no template
token: the ten characters `<|im_end|>` in a question become the tokens that any other ten
characters would become.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders

from edge_vlm_ros.core import TOKENIZER_BYTES, ModelFileError, require_regular
from edge_vlm_ros.text.native_errors import as_damaged
from edge_vlm_ros.text.sentencepiece import SENTENCEPIECE_FILE, load_sentencepiece

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TOKENIZER_FILE = 'tokenizer.json'


def _byte_alphabet() -> dict[str, int]:
    """Return which byte each letter of a byte-level vocabulary stands for.

    Bytes that print stand for themselves; the others, in order, for the letters from U+0100 on.

    Source: openai/gpt-2, encoder.py, bytes_to_unicode; `ByteLevel` of the tokenizers library.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if chr(byte) not in alphabet)
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_ALPHABET = _byte_alphabet()


class Tokenizer:
    """One model's tokenizer.

    Use from one thread at a time.

    Args:
        backend: What the tokenizers library loaded; changed here (no truncation, no padding), so
            not to be shared.
        name: For messages, where the tokenizer comes from.
        segment_prefix: What stands before every run of text that follows a template token: ' ' for
            some SentencePiece models, which take it for the space before a word.
    """

    def __init__(
        self, backend: Backend, name: str = TOKENIZER_FILE, segment_prefix: str = ''
    ) -> None:
        backend.encode_special_tokens = True  # the library's word for: treat them as text
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._name = name
        self._segment_prefix = segment_prefix
        added = backend.get_added_tokens_decoder()
        self._eats_left = frozenset(i for i, token in added.items() if token.lstrip)
        self._eats_right = frozenset(i for i, token in added.items() if token.rstrip)
        self._special = frozenset(i for i, token in added.items() if token.special)
        # Some files mark template tokens as ordinary (Qwen's <tool_call>); runs of spaces are real
        # vocabulary.
        markup = (i for i, token in added.items() if len(token.content.strip()) > 1)
        self._reserved = self._special.union(markup) - _unknown_ids(backend)
        self._bytes: dict[int, bytes] = {}
        self._is_byte_level = isinstance(backend.decoder, decoders.ByteLevel)

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Read the tokenizer of a model folder.

        `tokenizer.json` is read directly, and so is a SentencePiece `tokenizer.model`. Only a
        folder without either needs the transformers package, which can make one from older files
        (vocab.json and merges.txt).

        Raises:
            ModelFileError: There is no usable tokenizer; names the file.
        """
        file = folder / TOKENIZER_FILE
        if not file.is_file() and (folder / SENTENCEPIECE_FILE).is_file():
            loaded = load_sentencepiece(folder)
            name = str(folder / SENTENCEPIECE_FILE)
            with as_damaged(f'{name} makes no tokenizer'):
                return Tokenizer(loaded.backend, name, loaded.segment_prefix)
        if not file.is_file():
            return Tokenizer(_load_with_transformers(folder), str(folder))
        require_regular(file, TOKENIZER_BYTES)
        with as_damaged(f'{file} is damaged or not a tokenizer'):
            return Tokenizer(Backend.from_file(str(file)), str(file))

    @property
    def vocab_size(self) -> int:
        """Ids that have a token, template tokens included; embedding tables may have more rows."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def largest_id(self) -> int:
        """The largest id that it can give; template tokens have the last ones."""
        return max(self.vocab_size - 1, *self._backend.get_added_tokens_decoder(), 0)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that `decode` leaves out."""
        return self._special

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text: none of them is a template token, whatever the text says.

        Args:
            text: Any text; characters that UTF-8 cannot hold (lone surrogates) become question
                marks.
        """
        text = text.encode('utf-8', 'replace').decode('utf-8')
        encoding = self._backend.encode(text, add_special_tokens=False)
        # Template tokens that the library found in the text: cut in two, each is one no longer.
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        found = [span for token, span in spans if token in self._reserved]
        cuts = [start + 1 for start, stop in found if start + 1 < stop]
        if cuts:
            edges = zip([0, *cuts], [*cuts, len(text)], strict=True)
            return [token for start, stop in edges for token in self.encode(text[start:stop])]
        return [token for token in encoding.ids if token not in self._reserved]

    def encode_segment(self, text: str, before: int | None, after: int | None) -> list[int]:
        """Return the ids of a run of text between template tokens.

        Some template tokens swallow the spaces and line breaks beside them (Phi-3's do): these get
        no ids. Otherwise as `encode`.

        Args:
            text: The run.
            before: The template token before it; None = other text, or nothing.
            after: The template token after it; None = other text, or nothing.
        """
        if before in self._eats_right:
            text = text.lstrip()
        if after in self._eats_left:
            text = text.rstrip()
        if before is not None and text:
            text = self._segment_prefix + text
        return self.encode(text)

    def token_id(self, token: str) -> int:
        """Return the id of one template token.

        Raises:
            ModelFileError: This tokenizer has no such token.
        """
        found = self.find_token(token)
        if found is None:
            raise ModelFileError(f'{self._name} has no token {token!r}')
        return found

    def find_token(self, token: str) -> int | None:
        """Return the id of one template token; None if this tokenizer has no such token."""
        found = self._backend.token_to_id(token)
        return None if found is None else int(found)

    def is_special(self, token: int) -> bool:
        """Return whether a token is one that `decode` leaves out."""
        return token in self._special

    def decode(self, ids: Iterable[int], *, keep_special: bool = False) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD, unknown ids nothing.

        Args:
            ids: Token ids, 0 or more.
            keep_special: Spell template tokens out (for logs); by default they are left out.
        """
        return self._backend.decode(list(ids), skip_special_tokens=not keep_special)

    @property
    def is_byte_level(self) -> bool:
        """Whether the text is the joined `token_bytes` of its tokens: true of Qwen and Llama 3."""
        return self._is_byte_level

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token of a byte-level tokenizer stands for; none for unknown ids."""
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = _bytes_of(self._backend.id_to_token(token) or '')
        return found

    def piece(self, token: int) -> str:
        """Return a token as it stands in the vocabulary; '' for an unknown id."""
        return self._backend.id_to_token(token) or ''


def _unknown_ids(backend: Backend) -> frozenset[int]:
    """Return the id that stands for words outside the vocabulary, if there is one."""
    token = getattr(backend.model, 'unk_token', None)
    found = getattr(backend.model, 'unk_id', None) if token is None else backend.token_to_id(token)
    return frozenset() if found is None else frozenset([found])


def _bytes_of(piece: str) -> bytes:
    """Return the bytes of one byte-level piece; one with a foreign letter stands for itself."""
    try:
        return bytes(_BYTE_ALPHABET[letter] for letter in piece)
    except KeyError:
        return piece.encode()


def _load_with_transformers(folder: Path) -> Backend:
    """Let transformers make a fast tokenizer from older files.

    Raises:
        ModelFileError: transformers is missing, or cannot make one.
    """
    if not folder.is_dir():
        raise ModelFileError(f'there is no model folder {folder}')
    missing = f'{folder} has no {TOKENIZER_FILE}'
    try:
        transformers: Any = importlib.import_module('transformers')
    except ImportError as error:
        advice = 'install transformers, which reads older tokenizer files, or add the file'
        raise ModelFileError(f'{missing}: {advice}') from error
    with as_damaged(f'{missing}, and its other files make no tokenizer'):
        loaded = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    backend = getattr(loaded, 'backend_tokenizer', None)
    if not isinstance(backend, Backend):
        kind = type(loaded).__name__
        advice = "copy the file from the model's page"
        raise ModelFileError(f'{missing}, and {kind} cannot be converted to one: {advice}')
    return backend
