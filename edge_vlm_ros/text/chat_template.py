"""Chat templates, as data.

A template is a few runs of pieces: template tokens (`Special`) and plain text. Pieces become ids
by `encode_pieces`, the only way from a template to ids, so what a person wrote can never turn into
a template token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
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
class TurnMarkup:
    """What stands around one speaker's words."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How one family writes a conversation.

    Attributes:
        system: Around the system text; left out altogether if there is none.
        user: Around what the user says and shows.
        assistant: Around the answer.
        stop: Template tokens that end an answer.
        first: Before everything else.
    """

    system: TurnMarkup
    user: TurnMarkup
    assistant: TurnMarkup
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
    """Return the ids of pieces; adjacent plain text is encoded as one run.

    Raises:
        ModelFileError: The tokenizer lacks a template token.
    """
    runs: list[int | str] = []
    for is_text, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        if is_text:
            runs.append(''.join(piece for piece in group if isinstance(piece, str)))
        else:
            tokens = (piece.token for piece in group if isinstance(piece, Special))
            runs += map(tokenizer.token_id, tokens)
    ids: list[int] = []
    for place, run in enumerate(runs):
        if isinstance(run, int):
            ids.append(run)
            continue
        before, after = runs[:place][-1:], runs[place + 1 :][:1]
        ids += tokenizer.encode_segment(run, _token(before), _token(after))
    return ids


def _token(runs: list[int | str]) -> int | None:
    return next((run for run in runs if isinstance(run, int)), None)


def _chatml(between: str) -> ChatTemplate:
    start, end = Special('<|im_start|>'), Special('<|im_end|>')

    def turn(role: str) -> TurnMarkup:
        return TurnMarkup((start, f'{role}\n'), (end, between))

    return ChatTemplate(turn('system'), turn('user'), turn('assistant'), stop=(end.token,))


CHATML = _chatml(between='\n')
"""Qwen's template, also that of InternVL2.5 and 3."""

CHATML_TIGHT = _chatml(between='')
"""ChatML without the line break after a turn: InternVL2's 'Hermes-2'."""


def _llama3() -> ChatTemplate:
    start, end = Special('<|start_header_id|>'), Special('<|end_header_id|>')
    stop = Special('<|eot_id|>')

    def turn(role: str) -> TurnMarkup:
        return TurnMarkup((start, role, end, '\n\n'), (stop,))

    return ChatTemplate(
        turn('system'),
        turn('user'),
        turn('assistant'),
        stop=(stop.token, '<|end_of_text|>'),
        first=(Special('<|begin_of_text|>'),),
    )


LLAMA3 = _llama3()
"""Llama 3's template, also that of Llama 3.2 Vision."""


def _with_first(template: ChatTemplate, *stop: str) -> ChatTemplate:
    """Return a template that begins with `<s>` and has more stop tokens."""
    return replace(template, first=(Special('<s>'),), stop=(*template.stop, *stop))


INTERNLM2 = _with_first(CHATML_TIGHT, '</s>')
"""InternLM2's template, that of InternVL2 2B and 8B ('internlm2-chat')."""


def _phi3() -> ChatTemplate:
    def turn(role: str) -> TurnMarkup:
        return TurnMarkup((Special(f'<|{role}|>'), '\n'), (Special('<|end|>'),))

    template = ChatTemplate(turn('system'), turn('user'), turn('assistant'), stop=('<|end|>',))
    return _with_first(template, '<|endoftext|>', '</s>')


PHI3 = _phi3()
"""Phi-3's template as in InternVL2 4B ('phi3-chat'): no line break after a turn."""


def _smolvlm() -> ChatTemplate:
    end = Special('<end_of_utterance>')

    def turn(role: str) -> TurnMarkup:
        return TurnMarkup((role,), (end, '\n'))

    return ChatTemplate(
        turn('System: '),
        turn('User:'),
        turn('Assistant:'),
        stop=(end.token,),
        first=(Special('<|im_start|>'),),
    )


SMOLVLM = _smolvlm()
"""That of SmolVLM and SmolVLM2. A user's words that come before any image follow a blank."""
