"""Which of a question's choices a free answer names.

A robot acts on the result, so doubt gives none: two choices named, or one that is denied ('It is
not open.').
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_Words: TypeAlias = tuple[str, ...]

# Chinese and Japanese put no spaces between words: each of their characters counts as a word.
_HAN_KANA = '\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff'
_WORD = re.compile(rf"[{_HAN_KANA}]|(?:(?![{_HAN_KANA}])\w)+(?:'(?:(?![{_HAN_KANA}])\w)+)*")
# Full-width punctuation is not followed by a space.
_WIDE = '\n\u2014\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f'
_CLAUSE = re.compile(rf'[.,;:!?]+(?:\s|$)|[{_WIDE}]')
_DENIALS = frozenset({'no', 'not', 'never', 'neither', 'nor', 'without', 'cannot', '不', '没'})


def match_choice(answer: str, choices: Iterable[str]) -> str:
    """Return the one choice that an answer names, as it was given; '' unless there is exactly one.

    Case and punctuation do not count, only whole words do. In order: the whole answer is a choice;
    its first clause is one ('Yes, it is.') and no other clause is another; exactly one choice is
    named anywhere. Of choices inside one another ('left', 'front left') the longer counts. A
    choice that follows a denial in its clause does not count as named.

    Args:
        answer: Free text.
        choices: To choose from; those without a word in them, or with the words of another, match
            only as the whole answer.
    """
    listed = list(dict.fromkeys(choice for choice in choices if choice.strip()))
    for choice in listed:
        if answer.strip() == choice.strip():
            return choice
    by_words = {_words(choice): choice for choice in listed}
    numbers = Counter(map(_words, listed))
    # 'C' and 'C++' have the same words: the words name neither.
    by_words = {words: by_words[words] for words in by_words if words and numbers[words] == 1}
    if (whole := by_words.get(_words(answer))) is not None:
        return whole
    clauses = [_words(clause) for clause in _CLAUSE.split(answer)]
    clauses = [clause for clause in clauses if clause]
    led = {clause for clause in clauses if clause in by_words}
    if len(led) == 1 and clauses[0] in led:
        return by_words[clauses[0]]
    named = {words for clause in clauses for words in _named(clause, list(by_words))}
    return by_words[named.pop()] if len(named) == 1 else ''


def _words(text: str) -> _Words:
    plain = unicodedata.normalize('NFKC', text).casefold().replace('\u2019', "'")
    return tuple(_WORD.findall(plain))


def _named(clause: _Words, choices: Sequence[_Words]) -> set[_Words]:
    """Return the choices in a clause that are neither part of a longer one nor denied."""
    places = [
        (start, start + len(words), words)
        for words in choices
        for start in range(len(clause) - len(words) + 1)
        if clause[start : start + len(words)] == words
    ]
    outer = [
        (start, words)
        for start, stop, words in places
        if not any(a <= start and stop <= b and b - a > stop - start for a, b, _ in places)
    ]
    return {words for start, words in outer if not any(map(_denies, clause[:start]))}


def _denies(word: str) -> bool:
    return word in _DENIALS or word.endswith("n't")
