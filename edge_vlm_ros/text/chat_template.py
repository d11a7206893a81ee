"""The form of a conversation, as data.

A template is a few runs of pieces: template tokens (`Special`) and plain text. Pieces become ids
by `encode_pieces`, the only way from a template to ids, so what a person wrote can never turn into
a template token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from edge_vlm_ros.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Special:
    """A template token, by the name it has in the vocabulary."""

    token: str


Piece: TypeAlias = 'Special | str'
"""A template token, or plain text."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What stands around one speaker's words."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One family's form of a conversation.

    Attributes:
        system: Around the system text; left out as a whole where there is none.
        user: Around what the user says and shows.
        assistant: Around the answer.
        stop: Template tokens that end an answer.
        first: Before everything else.
    """

    system: Turn
    user: Turn
    assistant: Turn
    stop: tuple[str, ...]
    first: tuple[Piece, ...] = ()

    def opening(self, system_text: str) -> tuple[Piece, ...]:
        """Return what stands before the user's first words; '' = no system text."""
        if not system_text:
            return (*self.first, *self.user.before)
        system = (*self.system.before, system_text, *self.system.after)
        return (*self.first, *system, *self.user.before)

    def closing(self) -> tuple[Piece, ...]:
        """Return what stands between the user's words and the answer."""
        return (*self.user.after, *self.assistant.before)

    def next_turn(self) -> tuple[Piece, ...]:
        """Return what stands between an answer, less its stop token, and the user's next words."""
        return (*self.assistant.after, *self.user.before)


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> list[int]:
    """Return the ids of pieces; neighbouring texts are encoded as one.

    Raises:
        ModelFileError: The tokenizer lacks a template token.
    """
    ids: list[int] = []
    for is_text, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if is_text:
            ids += tokenizer.encode(''.join(piece for piece in run if isinstance(piece, str)))
        else:
            ids += [tokenizer.token_id(piece.token) for piece in run if isinstance(piece, Special)]
    return ids


def _chatml(between: str) -> ChatTemplate:
    start, end = Special('<|im_start|>'), Special('<|im_end|>')

    def turn(role: str) -> Turn:
        return Turn((start, f'{role}\n'), (end, between))

    return ChatTemplate(turn('system'), turn('user'), turn('assistant'), stop=(end.token,))


CHATML = _chatml(between='\n')
"""Qwen's form, also that of InternVL2.5 and 3."""

CHATML_TIGHT = _chatml(between='')
"""ChatML without the line break after a turn: InternVL2's 'Hermes-2'."""


def _llama3() -> ChatTemplate:
    start, end = Special('<|start_header_id|>'), Special('<|end_header_id|>')
    stop = Special('<|eot_id|>')

    def turn(role: str) -> Turn:
        return Turn((start, role, end, '\n\n'), (stop,))

    return ChatTemplate(
        turn('system'),
        turn('user'),
        turn('assistant'),
        stop=(stop.token, '<|end_of_text|>'),
        first=(Special('<|begin_of_text|>'),),
    )


LLAMA3 = _llama3()
"""Llama 3's form, also that of Llama 3.2 Vision."""
