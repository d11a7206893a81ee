"""The work items carried out: engine, family, what is cached. One thread, the `ChipWorker`'s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_vlm_ros.core import (
    NS_PER_S,
    CancelledError,
    Clock,
    EdgeVlmError,
    FeatureKey,
    Frame,
    FrameSource,
    PromptPart,
    Question,
    SamplingOptions,
    ShownAs,
    VisionFeatures,
    join_parts,
)
from edge_vlm_ros.engines.base import ChosenToken, StopCheck
from edge_vlm_ros.scheduling import (
    Encode,
    GivenUp,
    LeftOut,
    Outcome,
    Prefill,
    Prefilled,
    Prepare,
    Prepared,
    QuestionOwner,
    Render,
    Rendered,
    Work,
)
from edge_vlm_ros.serving.ahead_desk import LastPrefix, PrefixTooLongError, Wish
from edge_vlm_ros.serving.answer_steps import AnswerSteps
from edge_vlm_ros.serving.conversation import Conversation, SessionStore
from edge_vlm_ros.serving.cost_model import CostModel
from edge_vlm_ros.serving.feature_store import FeatureStore, NothingDecodedError
from edge_vlm_ros.serving.fitting import FittedPrompt, PromptFitter
from edge_vlm_ros.serving.kv_slots import KvSlots
from edge_vlm_ros.serving.loading import LoadedModel
from edge_vlm_ros.serving.model_info import StageCosts
from edge_vlm_ros.serving.planner import Estimate, LatencyPlanner, Planned
from edge_vlm_ros.serving.retelling import retold
from edge_vlm_ros.serving.running import Running, Turn
from edge_vlm_ros.serving.shown_frames import FrameGroup, ShownFrames, count_frames
from edge_vlm_ros.serving.step import Step

_NS_PER_MS = 1e6
_WARM_UP_QUESTION = 'What is this?'
_WARM_UP_PX = 64
_LONG_NS = NS_PER_S // 2

LONG_QUESTION = (
    'What is to the left of what is in the middle of the picture now, and why is it there?'
)
"""A prefix that is made ahead leaves room for this one, which is longer than most."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A prefix on its way into the KV cache.

    Attributes:
        prompt: Its tokens.
        frames: All of it; `VisionSpan.image` is an index into them.
    """

    prompt: PromptPart
    frames: tuple[ShownFrames, ...]

    @property
    def keys(self) -> tuple[FeatureKey, ...]:
        """Names of its frames."""
        return tuple(frame.key for frame in self.frames)

    def needed(self, start: int) -> tuple[FeatureKey, ...]:
        """Name the features that are needed for its tokens from `start` on."""
        keys = self.keys
        return tuple({keys[span.image]: None for span in self.prompt.spans if span.stop > start})

    def group(self, key: FeatureKey) -> FrameGroup:
        """Return the frames under a key."""
        return next(frame.group for frame in self.frames if frame.key == key)


class ModelSteps:
    """Carries out the scheduler's work with one loaded model.

    Args:
        loaded: The model.
        clock: Steady time.
        sessions: The conversations that go on.
    """

    def __init__(self, loaded: LoadedModel, clock: Clock, sessions: SessionStore) -> None:
        self._engine, self._family = loaded.engine, loaded.family
        self._clock = clock
        self._sessions = sessions
        self._store = FeatureStore(loaded.engine, loaded.family)
        self._slots = KvSlots(loaded.engine, self._store.has)
        self._answers = AnswerSteps(loaded, self._slots, clock)
        self._fitter = PromptFitter(loaded.family, loaded.engine.limits, sessions.max_turns)
        self._costs = StageCosts()
        self.costs = CostModel()
        self._warm_pixels = 0
        self._making: _Ahead | None = None
        self.ahead = LastPrefix()

    def warm_up(self) -> StageCosts:
        """Run one small question through every stage; return what each cost."""
        engine, family = self._engine, self._family
        self.costs = CostModel()
        times_ns = [self._clock.now_ns()]
        pixels = np.full((_WARM_UP_PX, _WARM_UP_PX, 3), 127, dtype=np.uint8)
        inputs = family.preprocess(Frame(pixels, 0, FrameSource('')))
        times_ns.append(self._clock.now_ns())
        features = engine.encode(inputs)
        times_ns.append(self._clock.now_ns())
        prefix = family.render_prefix([inputs], '')
        suffix = family.render_suffix(_WARM_UP_QUESTION, prefix.next_position, follows_images=True)
        prompt = join_parts((prefix, suffix))
        prefill_tokens, prefill_ns = self._warm_up_prefill(prompt, features)
        times_ns.append(self._clock.now_ns())
        chosen = engine.next_token(SamplingOptions())
        token = chosen.token if isinstance(chosen, ChosenToken) else int(chosen.values.argmax())
        engine.decode(token, prompt.next_position)
        times_ns.append(self._clock.now_ns())
        engine.kv.truncate(0)
        if prefill_ns < _LONG_NS:  # A second size tells what a token costs and what a piece.
            self._warm_up_prefill(family.render_suffix(_WARM_UP_QUESTION, 0), features)
            engine.kv.truncate(0)
        self._warm_pixels = inputs.pixels.size
        self.costs.encode_ms = (times_ns[2] - times_ns[1]) / _NS_PER_MS
        self.costs.decode_ms = (times_ns[4] - times_ns[3]) / _NS_PER_MS
        self._costs = StageCosts(
            prepare_ms=(times_ns[1] - times_ns[0]) / _NS_PER_MS,
            encode_ms=(times_ns[2] - times_ns[1]) / _NS_PER_MS,
            prefill_ms=prefill_ns / _NS_PER_MS,
            prefill_tokens=prefill_tokens,
            decode_ms=(times_ns[4] - times_ns[3]) / _NS_PER_MS,
        )
        return self._costs

    def _warm_up_prefill(self, prompt: PromptPart, features: VisionFeatures) -> tuple[int, int]:
        """Prefill a prompt; return tokens and nanoseconds of its largest piece."""
        costs: list[tuple[int, int]] = []
        start = 0
        for tokens in self._slots.plan(prompt):
            started_ns = self._clock.now_ns()
            self._engine.prefill(prompt.slice(start, start + tokens), {0: features})
            took_ns = self._clock.now_ns() - started_ns
            costs.append((tokens, took_ns))
            self.costs.note_prefill(tokens, start, took_ns / _NS_PER_MS)
            start += tokens
        return max(costs)

    def step_of(self, work: Work) -> Step:
        """Name a work item, and how much more than at the warm-up it has to do."""
        owner = work.owner
        request_id = owner.request_id if isinstance(owner, QuestionOwner) else ''
        scale = 1.0
        if isinstance(work, Prefill) and self._costs.prefill_tokens:
            scale = (work.stop - work.start) / self._costs.prefill_tokens
        elif isinstance(work, Encode) and self._warm_pixels:
            scale = self._store.pixels(work.key) / self._warm_pixels
        return Step(type(work).__name__.lower(), request_id, max(1.0, scale))

    def do(self, work: Work, running: Running, should_stop: StopCheck) -> Outcome:
        """Do one work item of a question.

        Args:
            work: What to do.
            running: For which question.
            should_stop: Whether the question is over or overdue; once true, it stays so.

        Raises:
            EdgeVlmError: The question cannot be answered.
            Exception: Whatever libraries raise; then `reset_kv` before the next work.
        """
        if isinstance(work, Prepare):
            return self._prepare_for(running, running.groups[work.key])
        if isinstance(work, Render):
            return self._render(running)
        turn = running.turn
        assert turn is not None
        if isinstance(work, Encode):
            group = next(frame.group for frame in turn.frames if frame.key == work.key)
            encoded = self._store.encode(group)
            turn.features |= self._store.features([work.key])
            return encoded
        if isinstance(work, Prefill):
            return self._prefill(turn.prompt, turn.keys, turn.features, work, should_stop)
        return self._answers.decode(running, turn)

    def do_ahead(self, work: Work, subject: FrameGroup | Wish, should_stop: StopCheck) -> Outcome:
        """Do one work item that is no question's.

        Args:
            work: What to do.
            subject: The frames that were offered, or the prefix that is wanted.
            should_stop: Whether a question has come.

        Raises:
            EdgeVlmError: The frames cannot be prepared or encoded, or do not fit.
            Exception: As `do`.
        """
        if isinstance(work, Prepare | Encode):
            group = self._group(subject, work.key) if isinstance(subject, Wish) else subject
            is_prepare = isinstance(work, Prepare)
            return self._store.prepare(group) if is_prepare else self._store.encode(group)
        assert isinstance(subject, Wish)
        if isinstance(work, Render):
            return self._render_ahead(subject)
        ahead = self._making
        assert ahead is not None
        assert isinstance(work, Prefill)
        features = self._store.features(ahead.keys)
        outcome = self._prefill(ahead.prompt, ahead.keys, features, work, should_stop)
        if isinstance(outcome, Prefilled) and work.stop == len(ahead.prompt):
            self._slots.is_whole(work.stop)
        return outcome

    def _render_ahead(self, wish: Wish) -> Rendered:
        """Write the wanted prefix, and see what the KV cache lacks of it."""
        prefix = wish.prefix
        before = self._sessions.peek(prefix.session_id)
        frames = [self._store.shown(group) for group in wish.groups.values()]
        question = Question(LONG_QUESTION, system_prompt=prefix.system_prompt)
        fitted = self._fitter.fit(question, before, frames)
        dropped = count_frames(before.new_frames(frames)) - count_frames(fitted.new_frames)
        if dropped > 0:
            raise PrefixTooLongError(count_frames(frames), count_frames(frames) - dropped)
        self._making = ahead = _Ahead(fitted.before, fitted.frames)
        begun = self._slots.begin_ahead(ahead.prompt, ahead.keys)
        self.ahead = LastPrefix(len(ahead.prompt), self.ahead.restarts + begun.is_restart)
        is_there = begun.reused == len(ahead.prompt)
        if is_there:
            self._slots.is_whole(len(ahead.prompt))
        pieces = () if is_there else self._slots.plan(ahead.prompt)
        return Rendered(pieces, begun.reused, ahead.needed(begun.reused))

    def _group(self, wish: Wish, key: FeatureKey) -> FrameGroup:
        """Return frames of a wish, or of the conversation that it goes on with."""
        if key in wish.groups:
            return wish.groups[key]
        assert self._making is not None
        return self._making.group(key)

    def _prepare_for(self, running: Running, group: FrameGroup) -> Prepared | LeftOut:
        """Prepare a group of a question; without it, the question goes on if it shows others.

        Raises:
            BadImageError: Nothing of the group can be decoded, and the question shows no other; or
                it is no camera's.
        """
        try:
            prepared = self._store.prepare(group)
        except NothingDecodedError as error:
            running.left_out += error.bad_frames
            if len(running.groups) == 1:
                raise
            del running.groups[group.key]
            return LeftOut()
        running.shown[group.key] = self._store.shown(group)
        return prepared

    def _render(self, running: Running) -> Rendered:
        question = running.question
        if question.earlier:
            self._sessions.reset(question.session_id)
        must_exist = question.continues_session and not question.earlier
        before = self._sessions.get(question.session_id, must_exist=must_exist)
        follows = before
        if question.earlier:
            most = self._engine.limits.max_images
            follows = retold(question.earlier, self._family, self._store, most)
        if question.session_id and follows.history is None:
            running.notes.append(f'the conversation {question.session_id!r} begins here')
        for key, group in running.groups.items():
            running.shown[key] = self._store.shown(group)  # Ready before: kept, or made ahead.
        running.note_damage()
        frames = [running.shown[key] for key in running.groups]
        if question.max_latency_s:
            planned = self._plan_within(running, follows, frames)
            fitted = planned.fitted
            sampling = replace(question.sampling, max_tokens=planned.max_tokens)
            question = replace(question, sampling=sampling)
            running.notes += planned.notes
        else:
            fitted = self._fitter.fit(question, follows, frames)
        running.notes += fitted.notes
        prompt = fitted.prompt
        turn = Turn(
            before=before,
            conversation=fitted.conversation,
            new_frames=fitted.new_frames,
            prompt=prompt,
            answer=self._answers.begin(question, prompt),
        )
        begun = self._slots.begin(prompt, turn.keys, fitted.words)
        turn.reused_tokens = begun.reused
        needed = turn.needed(turn.reused_tokens)
        turn.features |= self._store.features(needed)
        is_encoded = len(turn.features) == len(needed)
        turn.readiness = fitted.readiness(begun.shared, is_encoded=is_encoded)
        running.turn = turn
        return Rendered(self._slots.plan(prompt), turn.reused_tokens, needed)

    def _plan_within(
        self, running: Running, before: Conversation, frames: Sequence[ShownFrames]
    ) -> Planned:
        """Choose what to show and say within the time that is asked for."""
        question = running.question
        planner = LatencyPlanner(
            fit=lambda shown: self._fitter.fit(question, before, shown),
            estimate=self._estimate,
            shrink=self._shrink,
        )
        spent_s = (self._clock.now_ns() - running.asked_ns) / NS_PER_S
        return planner.plan(
            frames,
            question.sampling.max_tokens or self._engine.limits.context_tokens,
            question.max_latency_s - spent_s,
            question.max_latency_s,
        )

    def _estimate(self, fitted: FittedPrompt) -> Estimate:
        """Say what a prompt costs now, with what is kept and cached of it."""
        prompt, frames, costs = fitted.prompt, fitted.frames, self.costs
        reused = self._slots.look(prompt, fitted.keys)
        needed = {span.image for span in prompt.spans if span.stop > reused}
        runs = sum(
            self._runs(frames[image]) for image in needed if not self._store.has(frames[image].key)
        )
        pieces = self._engine.plan_prefill(len(prompt) - reused, reused)
        milliseconds = runs * costs.encode_ms + costs.prefill_ms(pieces, reused) + costs.decode_ms
        return Estimate(milliseconds / 1e3, costs.decode_ms / 1e3)

    def _runs(self, frame: ShownFrames) -> float:
        """Say how many times the start-up's run of the vision tower a frame costs."""
        pixels = self._store.pixels(frame.key)
        return max(1.0, pixels / self._warm_pixels) if self._warm_pixels else 1.0

    def _shrink(self, frame: ShownFrames) -> ShownFrames | None:
        """Show a lone image as one of several: with fewer tiles or patches."""
        group = replace(frame.group, key=replace(frame.key, shown_as=ShownAs.AMONG_OTHERS))
        self._store.prepare(group)
        smaller = self._store.shown(group)
        self._store.forget([group.key])  # Made again if it is chosen: nobody else knows of it.
        is_smaller = smaller.prepared.inputs.tokens < frame.prepared.inputs.tokens
        return smaller if is_smaller else None

    def _prefill(
        self,
        prompt: PromptPart,
        keys: tuple[FeatureKey, ...],
        features: Mapping[FeatureKey, VisionFeatures],
        work: Prefill,
        should_stop: StopCheck,
    ) -> Outcome:
        started_ns = self._clock.now_ns()
        part = prompt.slice(work.start, work.stop)
        by_image = {image: features[key] for image, key in enumerate(keys) if key in features}
        try:
            self._engine.prefill(part, by_image, should_stop)
        except CancelledError as error:
            if not should_stop():
                raise EdgeVlmError(f'prefill was given up unasked: {error.message}') from error
            return GivenUp()
        self._slots.append(part, keys)
        took_ms = (self._clock.now_ns() - started_ns) / _NS_PER_MS
        self.costs.note_prefill(len(part), work.start, took_ms)
        return Prefilled()

    def forget(self, keys: Iterable[FeatureKey]) -> None:
        """Give up what is kept under these keys."""
        self._store.forget(keys)

    def reset_kv(self) -> None:
        """Forget all that the cache holds: after an error nobody knows what that is."""
        self._slots.reset()
