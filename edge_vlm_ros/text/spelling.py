"""Choices as a model would say them, in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import BadRequestError, plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_vlm_ros.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to say a choice.

    Attributes:
        choice: Its number among the choices.
        tokens: As the model would say it, without the token that ends the turn.
    """

    choice: int
    tokens: tuple[int, ...]


def spell(
    choices: Sequence[str], tokenizer: Tokenizer, encode: Callable[[str], Sequence[int]]
) -> tuple[Spelling, ...]:
    """Spell each choice as it is written, and with its first letter in the other case.

    A text can be cut into tokens in several ways; the one that counts is the tokenizer's own: the
    model has learnt to say that. Blanks around a choice are left out: no turn begins with one.

    Args:
        choices: Not blank, no two alike but for case.
        tokenizer: The model's.
        encode: Gives the tokens of a text at the beginning of an answer.

    Returns:
        Spellings of other tokens each; those as written first.

    Raises:
        BadRequestError: The model has no tokens for a choice, or the same for two of them.
    """
    by_tokens: dict[tuple[int, ...], int] = {}
    for number, choice in enumerate(choices):
        tokens = tuple(encode(choice.strip()))
        said = tokenizer.decode(tokens)
        if _letters(said) != _letters(choice):
            raise BadRequestError(
                f'choices[{number}] cannot be said with the vocabulary of this model: {choice!r} '
                f'becomes {said!r}'
            )
        before = by_tokens.setdefault(tokens, number)
        if before != number:
            raise BadRequestError(
                f'choices[{before}] and choices[{number}] are the same to this model: '
                f'{choices[before]!r} and {choice!r}'
            )
    for number, choice in enumerate(choices):
        first, rest = choice.strip()[:1], choice.strip()[1:]
        tokens = tuple(encode(first.swapcase() + rest))
        if _letters(tokenizer.decode(tokens)) == _letters(choice):
            by_tokens.setdefault(tokens, number)
    return tuple(Spelling(number, tokens) for tokens, number in by_tokens.items())


def _letters(text: str) -> str:
    """Return what must come back from tokens: some tokenizers change blanks and width."""
    return plain_text(text).replace(' ', '')
