"""The laws of `GuardedEngine`, tried on a real engine: what it refuses, and what that leaves.

`broken_laws` needs nothing of pytest, so that it also runs in the process with an emulated chip.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    BadRequestError,
    CancelledError,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
    NotReadyError,
    PromptPart,
    PromptTooLongError,
    SamplingOptions,
    Spliced,
    VisionFeatures,
    VisionInputs,
    VisionSpan,
    text_part,
)
from edge_vlm_ros.engines.base import ChosenToken
from edge_vlm_ros.engines.guarded import GuardedEngine

GREEDY: Final = SamplingOptions()
_CLOSED = (NotReadyError, r'the engine is closed')
_NO_TOKEN = (EdgeVlmError, r'no token was appended since the KV cache was cut')
_FULL = (PromptTooLongError, r'\d+ tokens do not fit after \d+: the context holds \d+ tokens')
_ID = (EdgeVlmError, r'token id -?\d+ is not in the vocabulary of \d+')
_PAST = (PromptTooLongError, r'position \d+ is past the last one this model knows, \d+')
_STOPPED = (CancelledError, r'the prefill was given up')
_NO_SLOT = (ValueError, r'there is no slot -?\d+ of the KV cache: this engine has \d+')

LAWS: Final[Mapping[str, tuple[type[Exception], str]]] = {
    'head before any token': _NO_TOKEN,
    'scores before any token': _NO_TOKEN,
    'pixels of another size': (EdgeVlmError, r'pixels have shape .*, expected \(tiles, 3, '),
    'another number of rows': (
        EdgeVlmError,
        r'the vision tower gave \d+ rows, the prompt has room for \d+',
    ),
    'a prompt too long': _FULL,
    'a plan too long': _FULL,
    'an id above': _ID,
    'an id below': _ID,
    'a decoded id above': _ID,
    'a position above': _PAST,
    'a position below': (EdgeVlmError, r'position -1 is before the first one, 0'),
    'a decoded position above': _PAST,
    'three rows of positions': (EdgeVlmError, r'three rows of positions, this model takes one'),
    'features missing': (EdgeVlmError, r'no spliced features for image 0 of the prompt'),
    'features too short': (EdgeVlmError, r'asks for rows 0 to 2 of image 0, which has 1'),
    'features of another width': (EdgeVlmError, r'image 0 are \d+ wide, the language model \d+'),
    'a prefill given up': _STOPPED,
    'head after giving up': _NO_TOKEN,
    'a prefill that fails': (DeviceError, r'the chip failed'),
    'head after a failure': _NO_TOKEN,
    'a step that fails': (DeviceError, r'the chip failed'),
    'head after a failed step': _NO_TOKEN,
    'head after a cut': _NO_TOKEN,
    'a cut where there is no snapshot': (ValueError, r'this cache cannot be cut'),
    'a cut beyond the end': (ValueError, r'cannot truncate \d+ tokens to \d+'),
    'a token after a full context': _FULL,
    'a part after a full context': _FULL,
    'a slot above': _NO_SLOT,
    'a slot below': _NO_SLOT,
    'head in a slot that is empty': _NO_TOKEN,
    'head after a token in another slot': _NO_TOKEN,
    'head after a failure in another slot': _NO_TOKEN,
    'closed: encode': _CLOSED,
    'closed: usable_prefix': _CLOSED,
    'closed: plan_prefill': _CLOSED,
    'closed: prefill': _CLOSED,
    'closed: prefill of nothing': _CLOSED,
    'closed: next_token': _CLOSED,
    'closed: logits': _CLOSED,
    'closed: decode': _CLOSED,
    'closed: select_kv': _CLOSED,
}
"""What is tried -> what must be said."""

OF_SEVERAL_SLOTS: Final = frozenset(
    {
        'head in a slot that is empty',
        'head after a token in another slot',
        'head after a failure in another slot',
    }
)
"""Laws that an engine with one slot has no way to break."""

OF_SNAPSHOTS: Final = frozenset({'a cut where there is no snapshot'})
"""Laws that an engine whose cache can be cut has no way to break."""


def broken_laws(engine: GuardedEngine, *, rows: int, except_for: frozenset[str]) -> list[str]:
    """Try every law on an engine with an empty cache; close it.

    Args:
        engine: Of a model whose vision tower takes tiles and whose decoder takes one row of
            positions, unless `except_for` says otherwise.
        rows: Feature rows of a tile.
        except_for: Laws that this engine has no way to break.

    Returns:
        What was not refused, was refused in other words, or changed the cache; empty = all hold.
    """
    if engine.limits.kv_slots == 1:
        except_for |= OF_SEVERAL_SLOTS
    if engine.limits.can_truncate:
        except_for |= OF_SNAPSHOTS
    trial = _Trial(engine, except_for)
    _try_vision(trial, rows)
    _try_parts(trial)
    _try_features(trial)
    _try_slots(trial)
    for slot in range(engine.limits.kv_slots):
        engine.select_kv(slot)
        _try_ends(trial)
        _try_scores(trial)
        _try_context(trial)
    _try_closed(trial, rows)
    missing = LAWS.keys() - trial.tried - except_for
    return [*dict.fromkeys(trial.broken), *(f'{name}: was not tried' for name in sorted(missing))]


class _Trial:
    """Notes which laws were tried and which do not hold."""

    def __init__(self, engine: GuardedEngine, except_for: frozenset[str]) -> None:
        self.engine = engine
        self.tried: set[str] = set()
        self.broken: list[str] = []
        self._except_for = except_for

    def refuses(self, name: str, call: Callable[..., Any], *arguments: Any) -> None:
        """Call; the law's error must come, and the cache hold what it held."""
        if name in self._except_for:
            return
        self.tried.add(name)
        kind, wording = LAWS[name]
        held = self.engine.kv.length
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is judged)
            if type(error) is not kind or not re.search(wording, str(error)):
                self.broken.append(f'{name}: {type(error).__name__}: {error}')
        else:
            self.broken.append(f'{name}: not refused')
        if self.engine.kv.length != held:
            self.broken.append(f'{name}: the cache held {held}, now {self.engine.kv.length}')

    def append(self, part: PromptPart) -> None:
        """Append in the pieces that the engine plans."""
        start = 0
        for tokens in self.engine.plan_prefill(len(part)):
            self.engine.prefill(part.slice(start, start + tokens), {})
            start += tokens

    def holds(self, what: str, *, truth: bool) -> None:
        if not truth and what not in self._except_for:
            self.broken.append(what)


def _try_vision(trial: _Trial, rows: int) -> None:
    engine = trial.engine
    trial.refuses('head before any token', engine.next_token, GREEDY)
    trial.refuses('scores before any token', engine.logits)
    trial.refuses('pixels of another size', engine.encode, _tile(engine.limits.tile_px + 1, rows))
    trial.refuses('another number of rows', engine.encode, _tile(engine.limits.tile_px, rows + 1))


def _try_parts(trial: _Trial) -> None:
    engine, limits = trial.engine, trial.engine.limits
    context, vocab = limits.context_tokens, limits.vocab_size
    two = text_part((1, 2), 0)
    trial.refuses('a prompt too long', engine.prefill, text_part([1] * (context + 1), 0), {})
    trial.refuses('a plan too long', engine.plan_prefill, context + 1)
    trial.refuses('an id above', engine.prefill, text_part((1, vocab), 0), {})
    trial.refuses('an id below', engine.prefill, text_part((-1, 1), 0), {})
    trial.refuses('a decoded id above', engine.decode, vocab, 0)
    trial.refuses('a position above', engine.prefill, text_part((1, 2), context - 1), {})
    trial.refuses('a position below', engine.prefill, text_part((1, 2), -1), {})
    trial.refuses('a decoded position above', engine.decode, 1, context)
    axes = replace(two, positions=np.tile(two.positions, (3, 1)))
    trial.refuses('three rows of positions', engine.prefill, axes, {})


def _try_features(trial: _Trial) -> None:
    engine, hidden = trial.engine, trial.engine.limits.hidden_size
    shown = replace(text_part((1, 2, 3), 0), spans=(VisionSpan(0, 0, 2),))

    def features(rows: int, width: int) -> dict[int, VisionFeatures]:
        return {0: Spliced(np.zeros((rows, width), np.float32))}

    trial.refuses('features missing', engine.prefill, shown, {})
    trial.refuses('features too short', engine.prefill, shown, features(1, hidden))
    trial.refuses('features of another width', engine.prefill, shown, features(2, hidden + 1))


def _try_ends(trial: _Trial) -> None:
    """Try what does not come to its end, and what follows it."""
    engine = trial.engine
    trial.append(text_part((1, 2, 3), 0))
    engine.prefill(text_part((), 3), {})
    trial.holds('an empty part changes nothing', truth=engine.kv.length == 3)
    engine.next_token(GREEDY)
    engine.next_token(GREEDY)
    next_one = text_part((4,), 3)
    trial.refuses('a prefill given up', engine.prefill, next_one, {}, lambda: True)
    trial.refuses('head after giving up', engine.next_token, GREEDY)
    with _failing(engine):
        trial.refuses('a prefill that fails', engine.prefill, next_one, {})
        trial.refuses('head after a failure', engine.next_token, GREEDY)
    engine.decode(4, 3)
    engine.next_token(GREEDY)
    with _failing(engine):
        trial.refuses('a step that fails', engine.decode, 5, 4)
    trial.refuses('head after a failed step', engine.next_token, GREEDY)
    engine.kv.take_snapshot()  # for a cache that cannot be cut; to others it does nothing
    engine.decode(5, 4)
    if not engine.limits.can_truncate:
        trial.refuses('a cut where there is no snapshot', engine.kv.truncate, 3)
    engine.kv.truncate(4)
    trial.refuses('head after a cut', engine.next_token, GREEDY)
    trial.refuses('a cut beyond the end', engine.kv.truncate, 5)
    engine.decode(5, 4)
    engine.next_token(GREEDY)
    prompt = text_part(range(9), 0)
    usable = engine.usable_prefix(5, prompt)
    trial.holds(f'usable_prefix gave {usable} of 5', truth=0 <= usable <= 5)


def _try_scores(trial: _Trial) -> None:
    """Try what closed answers stand on: scores beside a chip's own choice, and after a cut."""
    engine = trial.engine
    engine.kv.truncate(0)
    trial.append(text_part((1, 2, 3), 0))
    if not engine.limits.has_logits:
        try:
            engine.logits()
        except BadRequestError as error:
            is_refused = error.code is ErrorCode.UNSUPPORTED_OPTION
        else:
            is_refused = False
        trial.holds('scores that the head does not give are refused', truth=is_refused)
        return

    engine.kv.take_snapshot()

    def scores_after(*tokens: int) -> NDArray[np.float32]:
        engine.kv.truncate(3)
        for place, token in enumerate(tokens, 3):
            engine.decode(token, place)
        values: NDArray[np.float32] = engine.logits().values.copy()
        return values

    first = scores_after(4, 5)
    trial.holds('one score for each id', truth=first.shape == (engine.limits.vocab_size,))
    chosen = engine.next_token(GREEDY)
    token = chosen.token if isinstance(chosen, ChosenToken) else int(chosen.values.argmax())
    trial.holds('the chip chooses the best of its scores', truth=token == int(first.argmax()))
    other = scores_after(6)
    again = scores_after(4, 5)
    trial.holds('other tokens have other scores', truth=not np.array_equal(first, other))
    trial.holds('a branch that was left says the same again', truth=np.array_equal(first, again))


def _try_context(trial: _Trial) -> None:
    engine, context = trial.engine, trial.engine.limits.context_tokens
    engine.kv.truncate(0)
    trial.append(text_part([1] * context, 0))
    engine.next_token(GREEDY)
    trial.refuses('a token after a full context', engine.decode, 1, context - 1)
    trial.refuses('a part after a full context', engine.prefill, text_part((1,), context - 1), {})


def _try_slots(trial: _Trial) -> None:
    """Try what slots refuse; then have two conversations in two of them by turns."""
    engine, slots = trial.engine, trial.engine.limits.kv_slots
    trial.refuses('a slot above', engine.select_kv, slots)
    trial.refuses('a slot below', engine.select_kv, -1)
    for slot in range(1, slots):
        trial.append(text_part((1, 2, 3), 0))
        engine.next_token(GREEDY)
        engine.select_kv(slot)
        trial.holds('a new slot is empty', truth=engine.kv.length == 0)
        trial.refuses('head in a slot that is empty', engine.next_token, GREEDY)
        engine.select_kv(0)
        engine.next_token(GREEDY)  # nothing was run since
        engine.select_kv(slot)
        trial.append(text_part((4, 5), 0))
        engine.next_token(GREEDY)
        engine.select_kv(0)
        trial.refuses('head after a token in another slot', engine.next_token, GREEDY)
        engine.decode(4, 3)
        engine.select_kv(slot)
        with _failing(engine):
            _refused(engine.prefill, text_part((6,), 2), {})
        engine.select_kv(0)
        trial.refuses('head after a failure in another slot', engine.next_token, GREEDY)
        engine.kv.truncate(0)
        trial.holds('a slot keeps its rows', truth=_length_in(engine, slot) == 2)
        _try_two_talks(trial, slot)


def _try_two_talks(trial: _Trial, slot: int) -> None:
    """Have two conversations one after the other, each in the first slot; then both by turns."""
    engine = trial.engine
    alone = []
    for words in _TALKS:
        engine.kv.truncate(0)
        alone.append([found for found in _talk(trial, words) if found is not None])
    found: list[list[NDArray[np.float32]]] = [[], []]
    talks = [_talk(trial, words) for words in _TALKS]
    for other in (slot, 0):
        engine.select_kv(other)
        engine.kv.truncate(0)
    # Steps of the two in an order that has one run ahead, then the other.
    order = [0, 1, 1, 0, 0, 0, 1, 0, 1, 1]
    running = [True, True]
    for turn in itertools.cycle(order):
        engine.select_kv((0, slot)[turn])
        scores = next(talks[turn], _END)
        running[turn] = running[turn] and scores is not _END
        if isinstance(scores, np.ndarray):
            found[turn].append(scores)
        if not any(running):
            break
    for turn, (one, other_way) in enumerate(zip(alone, found, strict=True)):
        is_equal = len(one) == len(other_way) and all(map(np.array_equal, one, other_way))
        trial.holds(f'talk {turn} by turns in slot {(0, slot)[turn]} is as alone', truth=is_equal)
    engine.select_kv(slot)
    engine.kv.truncate(0)
    engine.select_kv(0)
    engine.kv.truncate(0)


_TALKS: Final = (tuple(range(1, 12)), (9, 3, 9, 3, 7, 1, 2))
_END: Final = object()


def _talk(trial: _Trial, words: Sequence[int]) -> Iterator[NDArray[np.float32] | None]:
    """Have a conversation from an empty slot; between its steps another slot may be selected.

    Yields:
        None, or scores (a chosen token) that the head gave.
    """
    engine, middle = trial.engine, len(words) // 2
    trial.append(text_part(words[:middle], 0))
    yield None
    trial.append(text_part(words[middle:-1], middle))
    engine.kv.take_snapshot()
    yield None
    engine.decode(words[-1], len(words) - 1)
    yield (scores := _scores(engine))
    for place in range(len(words), len(words) + 3):
        engine.decode(int(scores.argmax()) if scores.size > 1 else int(scores[0]), place)
        yield (scores := _scores(engine))
    engine.kv.truncate(len(words) - 1)
    yield None
    next_one = text_part((words[0], words[1]), len(words) - 1)
    with _failing(engine):
        _refused(engine.prefill, next_one, {})
    yield None
    _refused(engine.prefill, next_one.slice(0, 1), {}, lambda: True)
    yield None
    trial.append(next_one)
    yield _scores(engine)


def _scores(engine: GuardedEngine) -> NDArray[np.float32]:
    found = engine.next_token(GREEDY)
    if isinstance(found, ChosenToken):
        return np.array([found.token], np.float32)
    values: NDArray[np.float32] = found.values.copy()
    return values


def _refused(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except EdgeVlmError:
        return
    raise AssertionError(f'{call} was not refused')


def _length_in(engine: GuardedEngine, slot: int) -> int:
    before = engine._slot
    engine.select_kv(slot)
    length = engine.kv.length
    engine.select_kv(before)
    return length


def _try_closed(trial: _Trial, rows: int) -> None:
    engine = trial.engine
    engine.close()
    engine.close()
    held = [slot.length for slot in engine._slots]
    trial.holds('a closed engine holds no token', truth=not any(held))
    part = text_part((1, 2), 0)
    trial.refuses('closed: encode', engine.encode, _tile(engine.limits.tile_px, rows))
    trial.refuses('closed: usable_prefix', engine.usable_prefix, 1, part)
    trial.refuses('closed: plan_prefill', engine.plan_prefill, 2)
    trial.refuses('closed: prefill', engine.prefill, part, {})
    trial.refuses('closed: prefill of nothing', engine.prefill, text_part((), 0), {})
    trial.refuses('closed: next_token', engine.next_token, GREEDY)
    trial.refuses('closed: logits', engine.logits)
    trial.refuses('closed: decode', engine.decode, 1, 0)
    trial.refuses('closed: select_kv', engine.select_kv, 0)


def _tile(px: int, rows: int) -> VisionInputs:
    return VisionInputs(np.zeros((1, 3, px, px), np.float32), (1, 1, 1), rows)


@contextmanager
def _failing(engine: GuardedEngine) -> Iterator[None]:
    """Have the chip fail once a step is under way."""

    def fail(*_: object) -> None:
        raise DeviceError('the chip failed')

    vars(engine).update(_append=fail, _step=fail)
    yield
    del vars(engine)['_append'], vars(engine)['_step']
