"""An answer in the model's own words: its tokens chosen, its text shown, its end recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from edge_vlm_ros.core import BadOutputError, FinishReason
from edge_vlm_ros.text.detokenizer import StreamingDetokenizer
from edge_vlm_ros.text.repetition import RepetitionGuard
from edge_vlm_ros.text.stop_rule import StopRule
from edge_vlm_ros.text.thoughts import Thoughts
from edge_vlm_ros.text.token_sampler import TokenSampler

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edge_vlm_ros.core import SamplingOptions
    from edge_vlm_ros.text.tokenizer import Tokenizer

_LONGEST_QUOTE = 60

_FEW_OF_ONE = 8
"""So many of one token are a loop already where nothing else was said and max_tokens cut it."""


_SAID_BY_NAN = (
    ': token 0 for ever is what a chip says whose scores are no numbers: take a build in bf16 (or '
    "fp16), and check driver and the SoC's memory layout (edge-vlm doctor)"
)


class FreeText:
    """One answer in the model's own words. Use from one thread at a time.

    What could be the beginning of a stop string waits, and so does what could be the beginning of
    a loop: neither is shown before it is clear that it is no such thing. Blanks that it begins
    with are not shown: some models say one after what opens the answer. Neither is what a model
    thinks aloud before it answers (`Thoughts`).

    Args:
        tokenizer: The model's.
        stop_tokens: Ids that end an answer.
        sampling: How tokens are chosen.
        stop_strings: Texts that end it and are no part of it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_tokens: Iterable[int],
        sampling: SamplingOptions,
        stop_strings: Iterable[str] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._sampler = TokenSampler(sampling)
        self._rule = StopRule(
            stop_tokens, max_tokens=sampling.max_tokens, stop_strings=stop_strings
        )
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._ends_loops = sampling.max_repeats > 0
        self._guard = RepetitionGuard(sampling.max_repeats)
        self._thoughts = Thoughts()
        self._tokens: list[int] = []
        self._reason = FinishReason.NONE
        self._shown: list[str] = []
        self._held = ''

    @property
    def tokens(self) -> Sequence[int]:
        """The answer's tokens, the stop token not among them."""
        return self._tokens

    @property
    def reason(self) -> FinishReason:
        """Why it ended; NONE while it goes on."""
        return self._reason

    @property
    def said(self) -> Sequence[int]:
        """The tokens of what was shown, once it ended: without those of a stop string."""
        if self._reason is not FinishReason.STOP_STRING:
            return self._tokens
        text = ''.join(self._shown)
        kept = len(self._tokens)
        while kept and not text.startswith(self._decode(kept)):
            kept -= 1
        rest = text[len(self._decode(kept)) :]
        return [*self._tokens[:kept], *self._tokenizer.encode(rest)]

    @property
    def has_thought(self) -> bool:
        """Whether it thought aloud first."""
        return self._thoughts.has_thought

    def choose(self, logits: NDArray[np.floating]) -> int:
        """Return the next token.

        Args:
            logits: Any float type, (vocabulary,); left unchanged.

        Raises:
            DeviceError: The device computed nonsense.
        """
        return self._sampler.choose(logits, self._tokens)

    def take(self, token: int, *, is_full: bool = False) -> str:
        """Take the next token; return what may be shown now.

        Args:
            token: As `choose` gave it, or the chip.
            is_full: The context holds no more tokens: the answer ends with this one.

        Raises:
            BadOutputError: The answer is a loop, or it ended with nothing visible said, be it for
                all its thinking.
        """
        text = ''
        if self._rule.accept(token):
            self._tokens.append(token)
            self._guard.push(token)
            if loop := self._guard.loop:
                self._raise_loop(loop)
            text = self._rule.show(self._thoughts.show(self._detokenizer.push(token)))
        self._reason = self._rule.reason
        if self._reason is FinishReason.NONE and is_full:
            self._reason = FinishReason.CONTEXT
        if self._reason is not FinishReason.NONE:
            return self._end(text)
        if self._guard.is_suspicious:
            self._held += text
            return ''
        return self._show(text)

    def _end(self, text: str) -> str:
        rest = self._thoughts.show(self._detokenizer.flush()) + self._thoughts.finish()
        text += self._rule.show(rest) + self._rule.finish()
        if self._rule.reason is FinishReason.STOP_STRING:
            self._reason = FinishReason.STOP_STRING
        shown = self._show(text)
        if self._reason is not FinishReason.STOP and len(self._tokens) >= _FEW_OF_ONE:
            self._check_one_token()
        is_empty = not ''.join(self._shown).strip()
        if is_empty and self._reason is not FinishReason.STOP_STRING:
            ended = self._reason.name.lower()
            if self.has_thought:
                raise BadOutputError(
                    f'the model thought aloud for {len(self._tokens)} tokens and said nothing '
                    f'(ended by {ended}): allow it more tokens (max_tokens), or a system prompt '
                    'that does not ask it to think'
                )
            raise BadOutputError(
                f'the model said nothing: {len(self._tokens)} tokens without a visible character '
                f'(ended by {ended})'
            )
        return shown

    def _decode(self, kept: int) -> str:
        return self._tokenizer.decode(self._tokens[:kept]).lstrip()

    def _show(self, text: str) -> str:
        text, self._held = self._held + text, ''
        if not any(self._shown):
            text = text.lstrip()
        self._shown.append(text)
        return text

    def _check_one_token(self) -> None:
        """Refuse an answer that was cut while it was still saying the one token it began with."""
        if self._ends_loops and len(set(self._tokens)) == 1:
            self._raise_loop(self._tokens[:1])

    def _raise_loop(self, loop: Sequence[int]) -> NoReturn:
        quoted = self._tokenizer.decode(loop, keep_special=True)
        if len(quoted) > _LONGEST_QUOTE:
            quoted = quoted[:_LONGEST_QUOTE] + '...'
        tokens = f'token {loop[0]}' if len(loop) == 1 else f'the same {len(loop)} tokens'
        advice = _SAID_BY_NAN if set(loop) == {0} else ''
        raise BadOutputError(
            f'the model repeats itself: {tokens} ({quoted!r}) over and '
            f'over; ended after {len(self._tokens)} tokens{advice}'
        )
