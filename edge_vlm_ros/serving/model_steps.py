"""The work items carried out: engine, family, what is cached. One thread, the `ChipWorker`'s."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge_vlm_ros.core import (
    BadFrame,
    BadImageError,
    CancelledError,
    Clock,
    EdgeVlmError,
    FeatureKey,
    FinishReason,
    Frame,
    FrameSource,
    PromptPart,
    SamplingOptions,
    ShownAs,
    Spliced,
    VisionFeatures,
    join_parts,
)
from edge_vlm_ros.engines.base import ChosenToken, StopCheck
from edge_vlm_ros.engines.checks import check_features
from edge_vlm_ros.scheduling import (
    Decoded,
    Encode,
    Encoded,
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
from edge_vlm_ros.serving.conversation import SessionStore, answer_part
from edge_vlm_ros.serving.fitting import PromptFitter
from edge_vlm_ros.serving.kv_record import KvRecord
from edge_vlm_ros.serving.loading import LoadedModel
from edge_vlm_ros.serving.model_info import StageCosts
from edge_vlm_ros.serving.running import Running, Turn
from edge_vlm_ros.serving.shown_frames import (
    FrameGroup,
    PreparedFrames,
    ShownFrames,
)
from edge_vlm_ros.serving.step import Step
from edge_vlm_ros.text import StopRule, StreamingDetokenizer, TokenSampler
from edge_vlm_ros.vision import decode_frame, decode_image

_log = logging.getLogger(__name__)

_NS_PER_MS = 1e6
_WARM_UP_QUESTION = 'What is this?'
_WARM_UP_PX = 64


@dataclass(frozen=True, slots=True)
class _Kept:
    """Features in the cache, and what a prompt needs to know of their frames."""

    features: VisionFeatures
    prepared: PreparedFrames


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
        self._prepared: dict[FeatureKey, PreparedFrames] = {}  # With pixels, to be encoded.
        self._kept: dict[FeatureKey, _Kept] = {}
        self._record = KvRecord()
        self._fitter = PromptFitter(loaded.family, loaded.engine.limits, sessions.max_turns)
        self._costs = StageCosts()
        self._warm_pixels = 0

    def warm_up(self) -> StageCosts:
        """Run one small question through every stage; return what each cost."""
        engine, family = self._engine, self._family
        times_ns = [self._clock.now_ns()]
        pixels = np.full((_WARM_UP_PX, _WARM_UP_PX, 3), 127, dtype=np.uint8)
        inputs = family.preprocess(Frame(pixels, 0, FrameSource('')))
        times_ns.append(self._clock.now_ns())
        features = engine.encode(inputs)
        times_ns.append(self._clock.now_ns())
        prefix = family.render_prefix([inputs], '')
        suffix = family.render_suffix(_WARM_UP_QUESTION, prefix.next_position)
        prompt = join_parts((prefix, suffix))
        prefill_tokens, prefill_ns = self._warm_up_prefill(prompt, features)
        times_ns.append(self._clock.now_ns())
        chosen = engine.next_token(SamplingOptions())
        token = chosen.token if isinstance(chosen, ChosenToken) else int(chosen.values.argmax())
        engine.decode(token, prompt.next_position)
        times_ns.append(self._clock.now_ns())
        engine.kv.truncate(0)
        self._warm_pixels = inputs.pixels.size
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
        for tokens in self._plan(len(prompt)):
            started_ns = self._clock.now_ns()
            self._engine.prefill(prompt.slice(start, start + tokens), {0: features})
            costs.append((tokens, self._clock.now_ns() - started_ns))
            start += tokens
        return max(costs)

    def step_of(self, work: Work) -> Step:
        """Name a work item, and how much more than at the warm-up it has to do."""
        owner = work.owner
        request_id = owner.request_id if isinstance(owner, QuestionOwner) else ''
        scale = 1.0
        if isinstance(work, Prefill) and self._costs.prefill_tokens:
            scale = (work.stop - work.start) / self._costs.prefill_tokens
        elif isinstance(work, Encode) and self._warm_pixels and work.key in self._prepared:
            scale = self._prepared[work.key].inputs.pixels.size / self._warm_pixels
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
            encoded = self._encode(group)
            turn.features[work.key] = self._kept[work.key].features
            return encoded
        if isinstance(work, Prefill):
            return self._prefill(turn, work, should_stop)
        return self._decode(running, turn)

    def do_ahead(self, work: Prepare | Encode, group: FrameGroup) -> Outcome:
        """Do one work item that is no question's.

        Args:
            work: What to do.
            group: The frames under its key.

        Raises:
            EdgeVlmError: The frames cannot be prepared or encoded.
            Exception: As `do`.
        """
        return self._prepare(group) if isinstance(work, Prepare) else self._encode(group)

    def _prepare_for(self, running: Running, group: FrameGroup) -> Prepared | LeftOut:
        """Prepare a group of a question; without it, the question goes on if it shows others.

        Raises:
            BadImageError: Nothing of the group can be decoded, and the question shows no other; or
                it is no camera's.
        """
        try:
            prepared = self._prepare(group)
        except _NothingDecodedError as error:
            running.left_out += error.bad_frames
            if len(running.groups) == 1:
                raise
            del running.groups[group.key]
            return LeftOut()
        running.shown[group.key] = self._shown(group)
        return prepared

    def _prepare(self, group: FrameGroup) -> Prepared:
        decoded, bad_frames = _decode(group)
        frames = [frame for frame in decoded if frame is not None]
        way = group.key.shown_as
        if way is ShownAs.VIDEO:
            inputs = self._family.preprocess_clip(frames)
        else:
            (frame,) = frames
            inputs = self._family.preprocess(frame, way)
        sizes = tuple(
            (0, 0) if frame is None else (frame.pixels.shape[1], frame.pixels.shape[0])
            for frame in decoded
        )
        self._prepared[group.key] = PreparedFrames(inputs, sizes, bad_frames)
        return Prepared()

    def _encode(self, group: FrameGroup) -> Encoded:
        if group.key not in self._prepared:  # Shown in an earlier turn, its features given up.
            self._prepare(group)
        prepared = self._prepared.pop(group.key)
        features = self._engine.encode(prepared.inputs)
        check_features(features)
        self._kept[group.key] = _Kept(features, prepared.without_pixels())
        return Encoded(_nbytes(features))

    def _shown(self, group: FrameGroup) -> ShownFrames:
        prepared = self._prepared.get(group.key) or self._kept[group.key].prepared
        return ShownFrames(group, prepared.without_pixels())

    def _render(self, running: Running) -> Rendered:
        question = running.question
        before = self._sessions.get(question.session_id, must_exist=question.continues_session)
        if question.session_id and before.history is None:
            running.notes.append(f'the conversation {question.session_id!r} begins here')
        for key, group in running.groups.items():
            running.shown[key] = self._shown(group)  # Ready before: kept, or made ahead.
        running.note_damage()
        frames = [running.shown[key] for key in running.groups]
        fitted = self._fitter.fit(question, before, frames)
        running.notes += fitted.notes
        prompt = fitted.prompt
        turn = Turn(
            before=before,
            conversation=fitted.conversation,
            new_frames=fitted.new_frames,
            prompt=prompt,
            sampler=TokenSampler(question.sampling),
            stop_rule=StopRule(self._family.stop_tokens, max_tokens=question.sampling.max_tokens),
            detokenizer=StreamingDetokenizer(self._family.tokenizer),
        )
        shared = self._record.shared(prompt, turn.keys)
        # The last token is always run: its scores choose the answer's first token.
        turn.reused_tokens = self._engine.usable_prefix(min(shared, len(prompt) - 1), prompt)
        self._engine.kv.truncate(turn.reused_tokens)
        self._record.truncate(turn.reused_tokens)
        needed = turn.needed(turn.reused_tokens)
        turn.features |= {key: self._kept[key].features for key in needed if key in self._kept}
        running.turn = turn
        return Rendered(self._plan(len(prompt) - turn.reused_tokens), turn.reused_tokens, needed)

    def _plan(self, tokens: int) -> tuple[int, ...]:
        """Ask the engine in which pieces it wants the tokens that follow what its cache holds."""
        pieces = self._engine.plan_prefill(tokens)
        if sum(pieces) != tokens or min(pieces) < 1:
            raise EdgeVlmError(f'the engine wants {tokens} tokens in pieces of {pieces}')
        return pieces

    def _prefill(self, turn: Turn, work: Prefill, should_stop: StopCheck) -> Outcome:
        keys = turn.keys
        part = turn.prompt.slice(work.start, work.stop)
        features = {
            image: turn.features[key] for image, key in enumerate(keys) if key in turn.features
        }
        try:
            self._engine.prefill(part, features, should_stop)
        except CancelledError as error:
            if not should_stop():
                raise EdgeVlmError(f'prefill was given up unasked: {error.message}') from error
            return GivenUp()
        self._record.append(part, keys)
        return Prefilled()

    def _decode(self, running: Running, turn: Turn) -> Decoded:
        started_ns = self._clock.now_ns()
        engine = self._engine
        if turn.tokens:
            position = turn.prompt.next_position + len(turn.tokens) - 1
            engine.decode(turn.tokens[-1], position)
            said = answer_part(turn.tokens[-1:], position, like=turn.prompt)
            self._record.append(said, ())
        chosen = engine.next_token(running.question.sampling)
        if isinstance(chosen, ChosenToken):
            token = chosen.token
        else:
            token = turn.sampler.choose(chosen.values)
        now_ns = self._clock.now_ns()
        if not running.first_token_ns:
            running.first_token_ns = now_ns
            running.head_ns = now_ns - started_ns
        running.last_token_ns = now_ns
        delta = ''
        if turn.stop_rule.accept(token):
            turn.tokens.append(token)
            delta = turn.stop_rule.show(turn.detokenizer.push(token))
        running.reason = turn.stop_rule.reason
        is_full = engine.kv.length >= engine.limits.context_tokens
        if running.reason is FinishReason.NONE and is_full:
            running.reason = FinishReason.CONTEXT
        is_last = running.reason is not FinishReason.NONE
        if is_last:
            delta += turn.stop_rule.show(turn.detokenizer.flush()) + turn.stop_rule.finish()
            running.tail = delta
        else:
            running.stream.push(delta)
        if delta and not running.first_text_ns:
            running.first_text_ns = self._clock.now_ns()
        return Decoded(is_last)

    def forget(self, keys: Iterable[FeatureKey]) -> None:
        """Give up what is kept under these keys."""
        for key in keys:
            self._prepared.pop(key, None)
            self._kept.pop(key, None)

    def reset_kv(self) -> None:
        """Forget all that the cache holds: after an error nobody knows what that is."""
        self._record.truncate(0)
        try:
            self._engine.kv.truncate(0)
        except BaseException:  # noqa: BLE001 (vendor libraries raise anything)
            _log.exception('the KV cache cannot be reset')


class _NothingDecodedError(BadImageError):
    """No frame of a camera's group can be decoded."""

    def __init__(self, bad_frames: tuple[BadFrame, ...]) -> None:
        first = bad_frames[0]
        super().__init__(f'camera {first.source.camera!r}: {first.reason}')
        self.bad_frames = bad_frames


def _decode(group: FrameGroup) -> tuple[list[Frame | None], tuple[BadFrame, ...]]:
    """Decode a group; return its frames, None for those that cannot be decoded, and these.

    Only frames of live cameras are left out: another one comes soon. An image that a request or a
    file brought is what was asked about.

    Raises:
        BadImageError: No frame can be decoded, or one that did not come from a camera.
    """
    decoded: list[Frame | None] = []
    bad_frames: list[BadFrame] = []
    for stored in group.frames:
        if not stored.received_ns:
            decoded.append(decode_frame(stored))
            continue
        try:
            decoded.append(Frame(decode_image(stored.image), stored.stamp_ns, stored.source))
        except BadImageError as error:
            decoded.append(None)
            bad_frames.append(
                BadFrame(stored.source, stored.stamp_ns, stored.received_ns, error.message)
            )
    if len(bad_frames) == len(decoded):
        raise _NothingDecodedError(tuple(bad_frames))
    return decoded, tuple(bad_frames)


def _nbytes(features: VisionFeatures) -> int:
    rows = features.rows if isinstance(features, Spliced) else features.states
    return int(rows.nbytes)
