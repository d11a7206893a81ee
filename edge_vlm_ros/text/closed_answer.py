"""A closed answer: which of the choices it is, by the model's own scores, and how probable.

The choices are written as the model would say them, token by token, each also with its first
letter in the other case ('yes', 'Yes'), and put into a trie. At each of its branches the model
scores its whole vocabulary; only the tokens that lead on in the trie count, and their softmax is
the probability of each. Where one choice begins another ('no', 'no, thanks') the end of the turn
is one of them. The probability of a choice is the product along its way, summed over its two
spellings: so those of all choices add up to 1. It is P(choice | one of the choices) under the
model that may say nothing else.

The best next token is not always on the way to the best choice. So branches are scored in the
order of their probability, and the search ends once no other choice can pass the best one: this is
exact, and mostly costs no more than going straight down, since a branch below which there is one
choice only is not scored. 'yes' and 'no' cost one look at the scores that the prompt leaves, and
no step. The engine is asked for steps by `path`; to go from one branch to another, its KV cache is
cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import DeviceError, FinishReason
from edge_vlm_ros.text.spelling import Spelling
from edge_vlm_ros.text.token_sampler import TokenSampler, check_logits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from edge_vlm_ros.core import SamplingOptions

MOST_STEPS = 512
"""So many tokens are run to be sure of the best choice. After that the likeliest way is taken, and
how probable it is remains unknown: this bounds what hostile choices cost the chip."""

_NEGLIGIBLE = 1e-3
"""What may be missing from the probability that is given."""

_END = -1
"""Stands for whatever token ends the turn."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """A place in the trie where more than one token leads on.

    Attributes:
        depth: Tokens that all spellings below have in common.
        mass: How probable it is that the answer comes by here.
        below: The spellings, sorted by their tokens.
    """

    depth: int
    mass: float
    below: tuple[Spelling, ...]

    @property
    def path(self) -> tuple[int, ...]:
        return self.below[0].tokens[: self.depth]

    @property
    def choices(self) -> frozenset[int]:
        return frozenset(spelling.choice for spelling in self.below)


class ClosedAnswer:
    """The search for the answer among choices. Use from one thread at a time.

    While `is_done` is false: have the engine run the tokens of `path` after the prompt, then hand
    the scores after them to `score`.

    Args:
        choices: As the caller wrote them.
        spellings: Of all choices, each of other tokens; the first of a choice is its own.
        stop_tokens: Ids that end the turn.
        sampling: Unless it is greedy the choice is drawn by the choices' probabilities, with
            temperature, top-k and top-p as for tokens.
    """

    def __init__(
        self,
        choices: Sequence[str],
        spellings: Iterable[Spelling],
        stop_tokens: Iterable[int],
        sampling: SamplingOptions,
    ) -> None:
        self._choices = tuple(choices)
        self._stop_ids = np.fromiter(sorted(stop_tokens), np.intp)
        self._sampling = sampling
        listed = list(spellings)
        self._tokens: dict[int, tuple[int, ...]] = {}
        for spelling in listed:
            self._tokens.setdefault(spelling.choice, spelling.tokens)
        self._found = np.zeros(len(self._choices))
        self._branches: list[_Branch] = []
        self._steps = 0
        self._is_hurried = False
        self._chosen: int | None = None
        self.free_probability: float | None = None
        """Of the choices' first tokens among all tokens; None = they were not scored."""
        self._add(sorted(listed, key=lambda spelling: spelling.tokens), 1.0, 0)
        self._settle()

    @property
    def is_done(self) -> bool:
        """Whether the answer is known."""
        return self._chosen is not None

    @property
    def path(self) -> tuple[int, ...]:
        """The tokens after which scores are wanted next."""
        return self._branches[-1].path

    @property
    def reason(self) -> FinishReason:
        """STOP once the answer is known: the turn ends after it; NONE before."""
        return FinishReason.STOP if self.is_done else FinishReason.NONE

    @property
    def choice(self) -> str:
        """The answer, as the caller wrote it; '' = not known yet."""
        return '' if self._chosen is None else self._choices[self._chosen]

    @property
    def tokens(self) -> Sequence[int]:
        """The answer's tokens; none before it is known."""
        return () if self._chosen is None else self._tokens[self._chosen]

    said = tokens

    @property
    def probability(self) -> float | None:
        """Of the answer among the choices, to 0.001; None = not known."""
        if self._chosen is None or self._is_hurried:
            return None
        return min(1.0, float(self._found[self._chosen]))

    @property
    def longest(self) -> int:
        """Tokens of the longest choice."""
        return max(map(len, self._tokens.values()))

    def step(self) -> None:
        """Count a token that was run on the way to `path`."""
        self._steps += 1

    def score(self, logits: NDArray[np.floating]) -> None:
        """Take the scores after `path`.

        Args:
            logits: Any float type, (vocabulary,); left unchanged.

        Raises:
            DeviceError: The device computed nonsense, or rules out every choice.
        """
        check_logits(logits)
        branch = self._branches.pop()
        at = branch.depth
        groups = [
            (token, tuple(group))
            for token, group in groupby(branch.below, lambda spelling: _token(spelling, at))
        ]
        scores = np.array([self._score(logits, token) for token, _ in groups])
        top = float(scores.max())
        if top == -np.inf:
            raise DeviceError('the scores rule out every choice: the device computed nonsense')
        weights = np.exp(scores - top)
        if not at and self.free_probability is None:
            self.free_probability = float(np.exp(np.logaddexp.reduce(scores) - _log_sum(logits)))
        shares = branch.mass * weights / weights.sum()
        for (_, below), share in zip(groups, shares, strict=True):
            self._add(below, float(share), at + 1)
        if self._steps >= MOST_STEPS:
            self._is_hurried = True
        self._settle()

    def _score(self, logits: NDArray[np.floating], token: int) -> float:
        if token != _END:
            return float(logits[token])
        return float(np.logaddexp.reduce(logits[self._stop_ids].astype(np.float64)))

    def _add(self, below: Sequence[Spelling], mass: float, depth: int) -> None:
        """Add what is below a token: a choice, or the next branch."""
        if len({spelling.choice for spelling in below}) == 1:
            self._found[below[0].choice] += mass
            return
        while len({_token(spelling, depth) for spelling in below}) == 1:
            depth += 1  # All go on with the same token: it has no alternative.
        self._branches.append(_Branch(depth, mass, tuple(below)))

    def _settle(self) -> None:
        """Choose, if enough is known; else see to it that the branch to score next is last."""
        self._branches.sort(key=lambda branch: branch.mass)
        if self._is_hurried:
            self._hurry()
        elif self._sampling.is_greedy:
            self._choose_best()
        elif not self._branches:
            with np.errstate(divide='ignore'):
                self._chosen = TokenSampler(self._sampling).choose(np.log(self._found))

    def _hurry(self) -> None:
        """Go on with the likeliest branch only; done where a choice is likelier than all of it."""
        best = int(self._found.argmax())
        if not self._branches or self._found[best] >= self._branches[-1].mass:
            self._chosen = best
        del self._branches[:-1]

    def _choose_best(self) -> None:
        """Choose the best, if no other can pass it and its probability is known."""
        most = self._found.copy()
        for branch in self._branches:
            most[list(branch.choices)] += branch.mass
        best = int(self._found.argmax())
        if self._branches and self._found[best] < np.delete(most, best).max(initial=0.0):
            return
        if most[best] - self._found[best] <= _NEGLIGIBLE:
            self._chosen = best
        else:  # It is the best; how probable it is depends on its other spelling.
            self._branches.sort(key=lambda branch: best in branch.choices)


def _token(spelling: Spelling, place: int) -> int:
    """Return the token at a place, or what stands for the end after the last one."""
    return spelling.tokens[place] if place < len(spelling.tokens) else _END


def _log_sum(logits: NDArray[np.floating]) -> float:
    top = float(logits.max())
    return top + float(np.log(np.exp(logits.astype(np.float64) - top).sum()))
