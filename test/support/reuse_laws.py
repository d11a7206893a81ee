"""What serving does with the KV cache, at random, on a real engine: as if nothing was reused?

A `Watcher` watches a scene as serving does: it prefills windows of frames ahead, asks about them,
goes on with conversations, starts again with the newest frames, is cut short and given up, by
turns in every slot of the cache. Each prompt is appended after what `KvRecord` and the engine say
it shares with the cache. Afterwards `wrong_answers` puts every prompt that was asked into an empty
cache at once and compares.

Needs nothing of pytest, so that it also runs in the process with an emulated chip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    ArrivalTime,
    CancelledError,
    FeatureKey,
    FrameKey,
    PromptPart,
    SamplingOptions,
    ShownAs,
    VisionFeatures,
    VisionInputs,
    VisionSpan,
    join_parts,
    text_part,
)
from edge_vlm_ros.engines import ChosenToken, Engine
from edge_vlm_ros.engines.base import StopCheck, never
from edge_vlm_ros.families import ModelFamily
from edge_vlm_ros.serving.kv_record import KvRecord

_GREEDY: Final = SamplingOptions()
_FRAMES: Final = 12


class PromptMaker(Protocol):
    """Words and images to prompts, as a family does it."""

    def prefix(self, images: Sequence[VisionInputs]) -> PromptPart:
        """All that precedes the first question."""
        ...

    def suffix(self, number: int, position: int) -> PromptPart:
        """One of several questions."""
        ...

    def next_turn(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        """What closes an answer, and new images."""
        ...


class FamilyPrompts:
    """A real family's prompts."""

    def __init__(self, family: ModelFamily) -> None:
        self._family = family

    def prefix(self, images: Sequence[VisionInputs]) -> PromptPart:
        return self._family.render_prefix(images, '')

    def suffix(self, number: int, position: int) -> PromptPart:
        return self._family.render_suffix('What is it?' + ' Well?' * number, position)

    def next_turn(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        return self._family.render_next_turn(images, first_image, position)


class IdPrompts:
    """Prompts of any ids, in InternVL's form, for models without a tokenizer.

    Args:
        words: Ids from 1 up to this one are words.
        axes: Rows of positions.
    """

    placeholder = 0

    def __init__(self, words: int, axes: int = 1) -> None:
        self._words, self._axes = words, axes

    def prefix(self, images: Sequence[VisionInputs]) -> PromptPart:
        return self._render([1, 2, 3], images, 0, 0)

    def suffix(self, number: int, position: int) -> PromptPart:
        drawn = np.random.default_rng(number).integers(1, self._words + 1, 2 + number)
        return self._render([*drawn.tolist(), 5], (), 0, position)

    def next_turn(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        return self._render([6, 4], images, first_image, position)

    def _render(
        self, words: list[int], images: Sequence[VisionInputs], first: int, position: int
    ) -> PromptPart:
        ids, spans = list(words), []
        for number, image in enumerate(images):
            ids.append(7 + number % 4)
            spans.append(VisionSpan(first + number, len(ids), len(ids) + image.tokens))
            ids += [self.placeholder] * image.tokens + [11]
        part = text_part(ids, position)
        positions = part.positions
        if self._axes > 1:
            positions = np.tile(positions, (self._axes, 1))
        return PromptPart(part.tokens, positions, part.next_position, tuple(spans))


@dataclass(frozen=True)
class Asked:
    """A prompt that was answered after what the cache held.

    Attributes:
        how: What led to it.
        prompt: All of it.
        features: Of its images.
        tokens: The answer's.
        states: What the engine told before each: scores, or hidden states.
        shared: Tokens that the cache held.
        reused: Of those, how many the engine went on from.
    """

    how: str
    prompt: PromptPart = field(repr=False)
    features: Mapping[int, VisionFeatures] = field(repr=False)
    tokens: list[int]
    states: list[NDArray[np.float32]] = field(repr=False)
    shared: int
    reused: int


@dataclass
class _Slot:
    """One slot of the cache, and what serving knows of it."""

    record: KvRecord = field(default_factory=KvRecord)
    window: list[int] = field(default_factory=lambda: [0])
    prompt: PromptPart | None = None
    shown: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)


class Watcher:
    """Watches a scene and answers questions about it with one engine.

    Args:
        engine: With an empty cache; 0 time costs of its plans do no harm.
        prompts: Its model's.
        scene: Makes frame i; every second one differs from the one before in a block of pixels.
        seed: Of what happens.
        state: What the engine tells of its next token; None = scores, or nothing.
        splits: Whether pieces of a plan may be cut smaller.
        answer: Tokens of an answer.
        record: What notes down what the cache holds.
    """

    def __init__(  # noqa: PLR0913 (what a run is made of)
        self,
        engine: Engine,
        prompts: PromptMaker,
        scene: Callable[[int], VisionInputs],
        seed: int,
        *,
        state: Callable[[], NDArray[np.float32]] | None = None,
        splits: bool = True,
        answer: int = 3,
        record: type[KvRecord] = KvRecord,
    ) -> None:
        self._engine, self._prompts = engine, prompts
        self._random = np.random.default_rng(seed)
        self._state, self._splits, self._answer_tokens = state, splits, answer
        self._inputs = [scene(number) for number in range(_FRAMES)]
        self._features = [engine.encode(inputs) for inputs in self._inputs]
        limits = engine.limits
        self._slots = [
            _Slot(record(can_truncate=limits.can_truncate)) for _ in range(limits.kv_slots)
        ]
        self._at = 0
        self._past: list[str] = []
        self.asked: list[Asked] = []

    def run(self, steps: int) -> list[Asked]:
        """Have so many things happen; at least one question is asked."""
        happenings = [
            *(self._watch, self._watch, self._give_up, self._restart, self._cut),
            *(self._swap, self._ask, self._ask, self._ask_fresh, self._next_turn, self._turn_to),
        ]
        for choice in self._random.integers(0, len(happenings), steps):
            happenings[choice]()
        self._ask()
        return self.asked

    # -- what happens -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """One more frame in the window, prefilled ahead of any question."""
        self._note('watch')
        self._grow()
        self._append(self._ahead(), self._slot.window)

    def _give_up(self) -> None:
        """The same, given up: between two pieces, or within one."""
        self._note('give up')
        self._grow()
        pieces = int(self._random.integers(0, 3))
        layers = iter(range(int(self._random.integers(0, 4))))
        self._append(self._ahead(), self._slot.window, pieces, lambda: next(layers, None) is None)

    def _restart(self) -> None:
        """The newest frames alone."""
        self._note('restart')
        self._slot.window = self._slot.window[-int(self._random.integers(1, 3)) :]
        self._append(self._ahead(), self._slot.window)

    def _cut(self) -> None:
        """The cache loses its end, or what of it can be lost."""
        self._note('cut')
        length = int(self._random.integers(0, self._engine.kv.length + 1))
        self._truncate(self._slot.record.reachable(length))

    def _swap(self) -> None:
        """The newest frame is another one after all, which differs in a block of pixels."""
        self._note('swap')
        self._slot.window[-1] ^= 1

    def _turn_to(self) -> None:
        """Another slot."""
        self._note('slot')
        self._at = int(self._random.integers(0, len(self._slots)))
        self._engine.select_kv(self._at)

    def _ask(self) -> None:
        self._note('ask')
        prefix = self._ahead()
        suffix = self._prompts.suffix(int(self._random.integers(0, 3)), prefix.next_position)
        self._answer(join_parts([prefix, suffix]), list(self._slot.window))

    def _ask_fresh(self) -> None:
        """A question with one more frame, which comes with it."""
        self._grow()
        self._ask()

    def _next_turn(self) -> None:
        """The conversation goes on, with a new frame or none."""
        slot = self._slot
        if slot.prompt is None:
            return
        self._note('next turn')
        new = [int(number) for number in self._random.integers(0, _FRAMES, 1)]
        new = new[: int(self._random.integers(0, 2))]
        parts = [slot.prompt]
        parts.append(_like(text_part(slot.said, slot.prompt.next_position), slot.prompt))
        parts.append(
            self._prompts.next_turn(
                [self._inputs[number] for number in new], len(slot.shown), parts[-1].next_position
            )
        )
        number = int(self._random.integers(0, 3))
        parts.append(self._prompts.suffix(number, parts[-1].next_position))
        prompt = join_parts(parts)
        if self._fits(prompt):
            self._answer(prompt, [*slot.shown, *new])

    # -- how --------------------------------------------------------------------------------------

    @property
    def _slot(self) -> _Slot:
        return self._slots[self._at]

    def _note(self, what: str) -> None:
        self._past.append(f'{what} in {self._at}')

    def _grow(self) -> None:
        """Add a frame; with one that no longer fits, start again with it alone."""
        slot = self._slot
        slot.window = [*slot.window, int(self._random.integers(0, _FRAMES))]
        prefix = self._ahead()
        longest = self._prompts.suffix(2, prefix.next_position)
        if not self._fits(join_parts([prefix, longest])):
            slot.window = slot.window[-1:]

    def _fits(self, prompt: PromptPart) -> bool:
        limits = self._engine.limits
        return len(prompt) <= min(
            limits.longest_prompt, limits.context_tokens - self._answer_tokens
        )

    def _ahead(self) -> PromptPart:
        return self._prompts.prefix([self._inputs[number] for number in self._slot.window])

    def _answer(self, prompt: PromptPart, shown: list[int]) -> None:
        slot = self._slot
        shared, reused = self._append(prompt, shown)
        tokens, states = decode(self._engine, prompt, self._answer_tokens, self._state)
        if len(tokens) > 1:
            said = _like(text_part(tokens[:-1], prompt.next_position), prompt)
            slot.record.append(said, ())
        slot.prompt, slot.shown, slot.said = prompt, shown, tokens
        how = ', '.join(self._past[-6:])
        self.asked.append(
            Asked(how, prompt, self._features_of(shown), tokens, states, shared, reused)
        )

    def _append(
        self,
        prompt: PromptPart,
        shown: Sequence[int],
        pieces: int = 1000,
        should_stop: StopCheck = never,
    ) -> tuple[int, int]:
        """Append what the cache lacks of a prompt, as serving does, in so many pieces at most.

        Returns:
            Tokens that the cache held of it, and how many were kept.
        """
        engine, record = self._engine, self._slot.record
        assert engine.kv.length == record.length
        keys = [_key(number) for number in shown]
        shared = record.shared(prompt, keys)
        shared = record.reachable(shared)
        held = record.reachable(min(shared, len(prompt) - 1))
        reused = record.reachable(engine.usable_prefix(held, prompt, range(len(shown))))
        self._truncate(reused)
        features = self._features_of(shown)
        at = reused
        while at < len(prompt) and pieces:
            piece = engine.plan_prefill(len(prompt) - at)[0]
            if self._splits and self._random.random() < 0.3:
                piece = int(self._random.integers(1, piece + 1))
            part = prompt.slice(at, at + piece)
            try:
                engine.prefill(part, features, should_stop)
            except CancelledError:
                assert engine.kv.length == at
                break
            record.append(part, keys)
            self._keep()
            at += piece
            pieces -= 1
        return shared, reused

    def _keep(self) -> None:
        """Of a cache that cannot be cut, take a snapshot of every second piece."""
        limits, record = self._engine.limits, self._slot.record
        if not limits.snapshots or self._random.random() < 0.5:
            return
        if len(record.snapshots) == limits.snapshots:
            given_up = sorted(record.snapshots)[int(self._random.integers(0, limits.snapshots))]
            self._engine.kv.drop_snapshot(given_up)
            record.snapshots.discard(given_up)
        self._engine.kv.take_snapshot()
        record.snapshots.add(record.length)

    def _truncate(self, length: int) -> None:
        self._engine.kv.truncate(length)
        self._slot.record.truncate(length)

    def _features_of(self, shown: Sequence[int]) -> dict[int, VisionFeatures]:
        return {image: self._features[number] for image, number in enumerate(shown)}


def decode(
    engine: Engine,
    prompt: PromptPart,
    count: int,
    state: Callable[[], NDArray[np.float32]] | None = None,
    given: Sequence[int] = (),
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Answer greedily after an appended prompt, or as given; the last token is not appended.

    Returns:
        The tokens, and before each what `state` told, or the scores.
    """
    tokens: list[int] = []
    states: list[NDArray[np.float32]] = []
    for place in range(count):
        found = engine.next_token(_GREEDY)
        if isinstance(found, ChosenToken):
            token, scores = found.token, np.zeros(0, np.float32)
        else:
            token, scores = int(found.values.argmax()), found.values.copy()
        states.append(scores if state is None else state())
        tokens.append(token)
        if place + 1 < count:
            engine.decode(given[place] if given else token, prompt.next_position + place)
    return tokens, states


def wrong_answers(
    engine: Engine,
    asked: Sequence[Asked],
    is_same: Callable[[NDArray[np.float32], NDArray[np.float32]], bool],
    state: Callable[[], NDArray[np.float32]] | None = None,
    is_sure: Callable[[NDArray[np.float32]], bool] = lambda _: True,
) -> list[str]:
    """Put each prompt into an empty cache at once; say which answers differ from those given.

    Args:
        engine: Where they were asked; its cache is emptied.
        asked: The prompts.
        is_same: Whether what the engine told is the same, up to the rounding of its arithmetic.
        state: As the `Watcher`'s.
        is_sure: Whether rounding cannot turn a token into another one.
    """
    engine.select_kv(0)
    wrong = []
    for one in asked:
        engine.kv.truncate(0)
        at = 0
        for piece in engine.plan_prefill(len(one.prompt)):
            engine.prefill(one.prompt.slice(at, at + piece), one.features)
            at += piece
        # Along the tokens that were given: after another one nothing could be compared.
        tokens, states = decode(engine, one.prompt, len(one.tokens), state, one.tokens)
        for place, (told, expected) in enumerate(zip(one.states, states, strict=True)):
            is_other = one.tokens[place] != tokens[place] and is_sure(expected)
            if is_other or not is_same(told, expected):
                wrong.append(
                    f'token {place} of {one.tokens} should be {tokens[place]} '
                    f'({one.reused} of {one.shared} shared tokens reused; {one.how})'
                )
                break
    engine.kv.truncate(0)
    return wrong


def _key(number: int) -> FeatureKey:
    """Name a frame. Frames that differ in a block of pixels come at the same time of a stamp."""
    frame = FrameKey('front', '/image', number // 2, ArrivalTime(number))
    return FeatureKey((frame,), ShownAs.AMONG_OTHERS)


def _like(part: PromptPart, like: PromptPart) -> PromptPart:
    """Give a text as many rows of positions as another part has."""
    if like.positions.ndim == 1:
        return part
    rows = np.tile(part.positions, (len(like.positions), 1))
    return PromptPart(part.tokens, rows, part.next_position)


def block_changed(pixels: NDArray[np.float32], number: int, side: int) -> NDArray[np.float32]:
    """Change one block of a tile (1, 3, px, px) for odd frames; even ones stay as they are."""
    changed: NDArray[np.float32] = pixels.copy()
    if number % 2:
        changed[..., :side, -side:] = 2.0 - changed[..., :side, -side:]
    return changed
