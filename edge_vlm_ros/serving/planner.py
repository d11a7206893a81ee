"""An answer within a given time: what is shown and said for it, chosen before anything runs.

Given up in this order, and no more than has to be: the detail of a lone image (tiles), moments of
clips, the newest frames where an older view of them is ready, the length of the answer. The answer
says what was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import ShownAs
from edge_vlm_ros.serving.shown_frames import count_frames, thin_out

if TYPE_CHECKING:
    from edge_vlm_ros.serving.fitting import FittedPrompt
    from edge_vlm_ros.serving.shown_frames import ShownFrames

LEAST_TOKENS = 8
"""An answer that is to be of use has room for so many tokens."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a prompt is expected to cost.

    Attributes:
        first_token_s: To the first token, seconds.
        token_s: For each further one.
    """

    first_token_s: float
    token_s: float

    def tokens_within(self, seconds: float) -> int:
        """Return how many tokens can be said in a time; 1 at least."""
        left_s = seconds - self.first_token_s
        return 1 + max(0, int(left_s / self.token_s)) if self.token_s > 0 else 1 << 30


@dataclass(frozen=True, slots=True)
class Planned:
    """A prompt that is chosen.

    Attributes:
        fitted: The prompt.
        max_tokens: Most answer tokens.
        notes: What was given up, for people.
    """

    fitted: FittedPrompt
    max_tokens: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LatencyPlanner:
    """Chooses among prompts for one question.

    Attributes:
        fit: Writes the prompt that shows some frames.
        estimate: Says what a prompt costs.
        shrink: Shows a lone image with less detail; None = there is no such way.
    """

    fit: Callable[[Sequence[ShownFrames]], FittedPrompt]
    estimate: Callable[[FittedPrompt], Estimate]
    shrink: Callable[[ShownFrames], ShownFrames | None]

    def plan(
        self, frames: Sequence[ShownFrames], max_tokens: int, left_s: float, asked_s: float
    ) -> Planned:
        """Choose what to show and how much to say.

        Args:
            frames: The question's, oldest first.
            max_tokens: That it asks for at most.
            left_s: Time that is left, seconds.
            asked_s: What was asked for, seconds; for the notes.
        """
        wanted = min(max_tokens, LEAST_TOKENS)
        cheapest: tuple[float, FittedPrompt, Estimate] | None = None
        for shown in self._ways(frames):
            fitted = self.fit(shown)
            cost = self.estimate(fitted)
            total_s = cost.first_token_s + (wanted - 1) * cost.token_s
            if cheapest is None or total_s < cheapest[0]:
                cheapest = total_s, fitted, cost
            if total_s <= left_s:
                break
        assert cheapest is not None
        total_s, fitted, cost = cheapest
        notes = list(_notes(frames, fitted, asked_s))
        if total_s > left_s:
            notes.append(
                f'an answer within {asked_s:.3g} s is not possible here now: even this way takes '
                f'about {asked_s - left_s + total_s:.2g} s'
            )
        most = max(wanted, cost.tokens_within(left_s))
        if most < max_tokens:
            notes.append(f'at most {most} tokens are said within {asked_s:.3g} s')
            max_tokens = most
        return Planned(fitted, max_tokens, tuple(notes))

    def _ways(self, frames: Sequence[ShownFrames]) -> Iterator[tuple[ShownFrames, ...]]:
        """Give what may be shown, the best first."""
        shown = tuple(frames)
        yield shown
        if len(shown) == 1 and shown[0].key.shown_as is ShownAs.ALONE:
            smaller = self.shrink(shown[0])
            if smaller is not None:
                yield (smaller,)
        for most in range(len(shown) - 1, 0, -1):
            fewer = thin_out(shown, most)
            if len(fewer) > most:
                break  # One of each camera is left, or images that the caller chose.
            yield fewer
        # What is ready is ready from the front: an older view at no cost, better than no answer.
        if all(each.key.frames[-1].camera for each in shown):
            yield from (shown[:most] for most in range(len(shown) - 1, 0, -1))


def _notes(frames: Sequence[ShownFrames], fitted: FittedPrompt, asked_s: float) -> Iterator[str]:
    keys = set(fitted.keys)
    shown = [each for each in frames if each.key in keys]
    if not frames or len(shown) == len(frames):
        return
    if not shown:
        yield f'to answer within {asked_s:.3g} s the image was shown in less detail'
        return
    newest = '' if frames[-1].key in keys else ', not the newest'
    yield (
        f'to answer within {asked_s:.3g} s {count_frames(shown)} of {count_frames(frames)} frames '
        f'were shown{newest}'
    )
