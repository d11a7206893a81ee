"""The one thread that touches the chip.

Questions, cancels and the end come from any thread; they change the scheduler under one lock, so
that a full queue, a cancel or a double request_id is answered at once, whatever the chip is doing.
The thread itself asks the scheduler for the next work item, does it without the lock, and reports.

Answers are handed to their streams outside the lock: whoever listens may call back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from edge_vlm_ros.core import (
    AnswerChunk,
    BadRequestError,
    Clock,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    Frame,
    FrameKey,
    FrameSource,
    NotReadyError,
    PromptTooLongError,
    Question,
    SamplingOptions,
    StoredFrame,
    TooManyFramesError,
    VisionFeatures,
    VisionInputs,
    join_parts,
)
from edge_vlm_ros.engines.base import ChosenToken
from edge_vlm_ros.scheduling import (
    Cancelled,
    Decode,
    Decoded,
    Encode,
    Encoded,
    Ended,
    Ending,
    Evicted,
    Failed,
    Idle,
    Notice,
    Outcome,
    Prefill,
    Prefilled,
    Prepare,
    Prepared,
    QuestionAsked,
    Render,
    Rendered,
    Scheduler,
    SchedulerSettings,
    Tick,
    Work,
    WorkDone,
)
from edge_vlm_ros.serving.conversation import (
    SessionStore,
    ShownFrame,
    answer_part,
    name_frame,
    without_pixels,
)
from edge_vlm_ros.serving.kv_record import KvRecord
from edge_vlm_ros.serving.loading import LoadedModel
from edge_vlm_ros.serving.model_info import ModelInfo, StageCosts
from edge_vlm_ros.serving.running import Running, Turn
from edge_vlm_ros.serving.stream import AnswerStream
from edge_vlm_ros.text import StopRule, StreamingDetokenizer, TokenSampler
from edge_vlm_ros.vision import decode_frame

_log = logging.getLogger(__name__)

_NS_PER_MS = 1e6
_WARM_UP_QUESTION = 'What is this?'
_WARM_UP_PX = 64


@dataclass(frozen=True, slots=True)
class _Kept:
    """A frame's features in the cache, and what a prompt needs to know of the frame."""

    features: VisionFeatures
    inputs: VisionInputs
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Final:
    """An answer that is over and has still to be told."""

    running: Running
    reason: FinishReason
    code: ErrorCode = ErrorCode.NONE
    message: str = ''


class ChipWorker:
    """Answers questions one after the other on a thread of its own.

    Args:
        load: Opens engine and family; called on the worker's thread, which alone uses them.
        clock: Steady time.
        sessions: The conversations that go on.
        settings: The scheduler's bounds.
        on_work: Called on the worker's thread before each work item: a sign of life.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        *,
        clock: Clock,
        sessions: SessionStore,
        settings: SchedulerSettings = SchedulerSettings(),  # noqa: B008 (frozen)
        on_work: Callable[[], None] | None = None,
    ) -> None:
        self._load = load
        self._clock = clock
        self._sessions = sessions
        self._settings = settings
        self._on_work = on_work
        self._changed = threading.Condition()
        self._running: dict[str, Running] = {}
        self._is_stopping = False
        self._started = threading.Event()
        self._start_error: BaseException | None = None
        self._features: dict[FrameKey, _Kept] = {}
        self._record = KvRecord()
        self._thread = threading.Thread(target=self._run, name='chip-worker', daemon=True)

    @property
    def info(self) -> ModelInfo:
        """The model that is loaded; valid after `start`."""
        return self._info

    def start(self) -> None:
        """Load the model and warm it up; return when the first question can be asked.

        Raises:
            EdgeVlmError: Loading failed: `ModelFileError`, `DeviceError`, ...
        """
        self._thread.start()
        self._started.wait()
        if self._start_error is not None:
            self._thread.join()
            raise self._start_error

    def ask(
        self, question: Question, on_chunk: Callable[[AnswerChunk], None] | None = None
    ) -> AnswerStream:
        """Queue a question; from any thread.

        Args:
            question: With a request_id that no running question has.
            on_chunk: Called with every chunk, in order, on the thread that makes it.

        Raises:
            BadRequestError: The request_id is empty or belongs to a running question.
            NotReadyError: The worker is closed.
        """
        request_id = question.request_id
        stream = AnswerStream(request_id, cancel=self.cancel, on_chunk=on_chunk)
        running = Running(question, stream, {}, self._clock.now_ns())
        refusal: EdgeVlmError | None = None
        try:
            self._check(question)
            running.stored.update((name_frame(frame), frame) for frame in question.frames)
        except EdgeVlmError as error:
            refusal = error
        with self._changed:
            if self._is_stopping:
                raise NotReadyError('the pipeline is closed')
            if not request_id or request_id in self._running:
                raise BadRequestError(
                    f'request_id {request_id!r} is empty or that of a running question',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            if refusal is not None:
                finals = [_Final(running, FinishReason.ERROR, refusal.code, refusal.message)]
            else:
                self._running[request_id] = running
                asked = QuestionAsked(request_id, tuple(running.stored), question.deadline_ns)
                finals = self._apply(self._scheduler.handle(asked))
                self._changed.notify_all()
        self._deliver(finals)
        return stream

    def cancel(self, request_id: str = '') -> int:
        """Take one question back, or all ('' = all); return how many there were. Any thread."""
        with self._changed:
            if request_id:
                chosen = [request_id]
            else:
                # From the back: none of those that wait is started only to be ended.
                chosen = list(reversed(self._scheduler.request_ids))
            finals = [
                final
                for name in chosen
                for final in self._apply(self._scheduler.handle(Cancelled(name)))
            ]
        self._deliver(finals)
        return len(finals)

    def close(self, timeout_s: float = 10.0) -> bool:
        """End every question, free the chip, end the thread; return whether it ended in time."""
        with self._changed:
            self._is_stopping = True
            finals = [
                _Final(
                    running,
                    FinishReason.CANCELLED,
                    ErrorCode.CANCELLED,
                    'the pipeline was closed',
                )
                for running in self._running.values()
            ]
            self._running.clear()
            self._changed.notify_all()
        self._deliver(finals)
        if self._thread is threading.current_thread():
            return False
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- what questions ask for ------------------------------------------------------------------

    def _check(self, question: Question) -> None:
        """Refuse what this model cannot do, before anything is done."""
        limits = self._info.limits
        if limits.max_images and len(question.frames) > limits.max_images:
            raise TooManyFramesError(
                f'{len(question.frames)} frames, the model takes {limits.max_images} in one prompt'
            )
        sampling = question.sampling
        wants_sampling = sampling.temperature > 0 or sampling.top_p < 1 or sampling.top_k > 0
        if wants_sampling and limits.samples_on_chip and not limits.has_logits:
            raise BadRequestError(
                f'{self._info.model} on {self._info.chip} chooses tokens on the chip: '
                'temperature, top_p and top_k cannot be set',
                ErrorCode.UNSUPPORTED_OPTION,
            )

    # --- the scheduler's word, under the lock ----------------------------------------------------

    def _apply(self, notices: Iterable[Notice]) -> list[_Final]:
        finals: list[_Final] = []
        for notice in notices:
            if isinstance(notice, Evicted):
                self._features.pop(notice.frame, None)
                continue
            running = self._running.pop(notice.request_id)
            if isinstance(notice, Ended):
                finals.append(_final_of(running, notice.ending))
                continue
            message = (
                f'{notice.waiting} questions wait already, the queue holds {notice.max_waiting}; '
                f'this one would have been number {notice.waiting + 1}'
            )
            finals.append(_Final(running, FinishReason.ERROR, ErrorCode.BUSY, message))
        return finals

    # --- answers, outside the lock ---------------------------------------------------------------

    def _deliver(self, finals: Iterable[_Final]) -> None:
        for final in finals:
            running, turn = final.running, final.running.turn
            if final.code is ErrorCode.NONE and turn is not None:
                question = running.question
                after = turn.conversation.with_turn(
                    turn.prompt, turn.tokens, turn.new_frames, question.system_prompt
                )
                self._sessions.put(question.session_id, turn.conversation, after)
            now_ns = self._clock.now_ns()
            running.stream.finish(
                lambda text, final=final, now_ns=now_ns: final.running.answer(  # type: ignore[misc]
                    text,
                    final.reason,
                    code=final.code,
                    message=final.message,
                    now_ns=now_ns,
                    model=self._info.model,
                    chip=self._info.chip,
                ),
                running.tail if final.code is ErrorCode.NONE else '',
            )

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        loaded: LoadedModel | None = None
        try:
            try:
                loaded = self._open()
            except (Exception, SystemExit) as error:  # noqa: BLE001 (told by `start`)
                self._start_error = _known(error)
                return
            finally:
                self._started.set()
            self._answer_questions()
        finally:
            if loaded is not None:
                loaded.engine.close()

    def _open(self) -> LoadedModel:
        started_ns = self._clock.now_ns()
        loaded = self._load()
        self._engine, self._family = loaded.engine, loaded.family
        try:
            self._warm_up()  # The very first run sets up caches and kernels.
            costs = self._warm_up()
        except BaseException:
            loaded.engine.close()
            raise
        limits = loaded.engine.limits
        load_s = (self._clock.now_ns() - started_ns) / 1e9
        self._info = ModelInfo(
            loaded.model, loaded.chip, loaded.family_name, limits, costs, round(load_s, 3)
        )
        self._scheduler = Scheduler(limits, self._settings)
        _log.info('ready: %s on %s after %.2f s, %s', loaded.model, loaded.chip, load_s, costs)
        return loaded

    def _warm_up(self) -> StageCosts:
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
        step = engine.limits.prefill_chunk or len(prompt)
        times_ns.append(self._clock.now_ns())
        for start in range(0, len(prompt), step):
            engine.prefill(prompt.slice(start, start + step), {0: features})
        times_ns.append(self._clock.now_ns())
        chosen = engine.next_token(SamplingOptions())
        token = chosen.token if isinstance(chosen, ChosenToken) else int(chosen.values.argmax())
        engine.decode(token, prompt.next_position)
        times_ns.append(self._clock.now_ns())
        engine.kv.truncate(0)
        chunks = -(-len(prompt) // step)
        return StageCosts(
            prepare_ms=(times_ns[1] - times_ns[0]) / _NS_PER_MS,
            encode_ms=(times_ns[2] - times_ns[1]) / _NS_PER_MS,
            prefill_ms=(times_ns[4] - times_ns[3]) / _NS_PER_MS / chunks,
            prefill_tokens=min(step, len(prompt)),
            decode_ms=(times_ns[5] - times_ns[4]) / _NS_PER_MS,
        )

    def _answer_questions(self) -> None:
        while True:
            with self._changed:
                now_ns = self._clock.now_ns()
                finals = self._apply(self._scheduler.handle(Tick(now_ns)))
                work = self._scheduler.next_work()
                if isinstance(work, Idle) and not finals and not self._is_stopping:
                    self._changed.wait()
                if self._is_stopping:
                    return
                running = None if isinstance(work, Idle) else self._running[work.request_id]
            self._deliver(finals)
            if running is None:
                continue
            outcome = self._do(work, running)
            with self._changed:
                if self._is_stopping:
                    return
                finals = self._apply(self._scheduler.handle(WorkDone(work, outcome)))
            self._deliver(finals)

    def _do(self, work: Work, running: Running) -> Outcome:
        """Do one work item; whatever goes wrong ends this question and no other."""
        started_ns = self._clock.now_ns()
        running.started_ns = running.started_ns or started_ns
        try:
            if self._on_work is not None:
                self._on_work()
            return self._outcome(work, running)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (vendor libraries call exit)
            running.error = _known(error)
            if running.error.code is ErrorCode.INTERNAL:
                _log.exception('%s failed', work)
            if isinstance(work, Encode | Prefill | Decode):
                self._reset_kv()
            return Failed()
        finally:
            running.spend(work, started_ns, self._clock.now_ns())

    def _outcome(self, work: Work, running: Running) -> Outcome:
        if isinstance(work, Prepare):
            self._prepare(running, work.frame, running.stored[work.frame])
            return Prepared()
        if isinstance(work, Render):
            return self._render(running)
        turn = running.turn
        assert turn is not None
        if isinstance(work, Encode):
            return self._encode(running, turn, work.frame)
        if isinstance(work, Prefill):
            return self._prefill(turn, work)
        assert isinstance(work, Decode)
        return self._decode(running, turn)

    def _prepare(self, running: Running, key: FrameKey, stored: StoredFrame) -> VisionInputs:
        frame = decode_frame(stored)
        inputs = self._family.preprocess(frame)
        height, width = frame.pixels.shape[:2]
        running.pixels[key] = inputs
        running.shown[key] = ShownFrame(stored, key, without_pixels(inputs), width, height)
        return inputs

    def _render(self, running: Running) -> Rendered:
        question = running.question
        conversation = self._sessions.get(question.session_id)
        frames = [self._shown(running, key) for key in running.stored]
        new_frames = conversation.new_frames(frames)
        self._check_images([*conversation.frames, *new_frames])
        prompt = conversation.render(
            self._family, question.text, new_frames, question.system_prompt
        )
        turn = Turn(
            conversation=conversation,
            new_frames=new_frames,
            prompt=prompt,
            sampler=TokenSampler(question.sampling),
            stop_rule=StopRule(
                self._family.stop_tokens, max_tokens=question.sampling.max_tokens
            ),
            detokenizer=StreamingDetokenizer(self._family.tokenizer),
        )
        self._check_length(turn)
        if self._engine.limits.can_extend_prefix:
            shared = self._record.shared(prompt, turn.keys, turn.attended)
            # The last token is always run: its scores choose the answer's first token.
            turn.reused_tokens = min(shared, len(prompt) - 1)
        self._engine.kv.truncate(turn.reused_tokens)
        self._record.truncate(turn.reused_tokens)
        self._record.start(turn.attended)
        needed = turn.unfinished_frames(turn.reused_tokens)
        for key in needed:
            if key in self._features:
                turn.features[key] = self._features[key].features
        running.turn = turn
        return Rendered(len(prompt), turn.reused_tokens, needed)

    def _shown(self, running: Running, key: FrameKey) -> ShownFrame:
        if key not in running.shown:  # Its features were kept: nothing had to be decoded.
            kept = self._features[key]
            running.shown[key] = ShownFrame(
                running.stored[key], key, kept.inputs, kept.width, kept.height
            )
        return running.shown[key]

    def _check_images(self, frames: list[ShownFrame]) -> None:
        images = sum(frame.inputs.grid[0] for frame in frames)
        most = self._engine.limits.max_images
        if most and images > most:
            raise TooManyFramesError(
                f'{len(frames)} frames make {images} images in this conversation, '
                f'the model takes {most} in one prompt'
            )

    def _check_length(self, turn: Turn) -> None:
        limits = self._engine.limits
        longest = min(limits.longest_prompt, limits.context_tokens)
        tokens = len(turn.prompt)
        if tokens > longest:
            vision_tokens = turn.prompt.vision_tokens
            history = turn.conversation.history
            earlier = f', {len(history)} of them from earlier turns' if history else ''
            raise PromptTooLongError(
                f'the prompt has {tokens} tokens ({vision_tokens} for {len(turn.frames)} '
                f'frames{earlier}), the model takes {longest}'
            )

    def _encode(self, running: Running, turn: Turn, key: FrameKey) -> Encoded:
        shown = next(frame for frame in turn.frames if frame.key == key)
        inputs = running.pixels.pop(key, None)
        if inputs is None:  # Shown in an earlier turn, its features given up since.
            inputs = self._family.preprocess(decode_frame(shown.stored))
        features = self._engine.encode(inputs)
        turn.features[key] = features
        self._features[key] = _Kept(features, shown.inputs, shown.width, shown.height)
        return Encoded(_nbytes(features))

    def _prefill(self, turn: Turn, work: Prefill) -> Prefilled:
        keys = turn.keys
        part = turn.prompt.slice(work.start, work.stop)
        features = {
            image: turn.features[key] for image, key in enumerate(keys) if key in turn.features
        }
        self._engine.prefill(part, features)
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
        is_chosen = isinstance(chosen, ChosenToken)
        token = chosen.token if is_chosen else turn.sampler.choose(chosen.values)
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

    def _reset_kv(self) -> None:
        """Forget all that the cache holds: after an error nobody knows what that is."""
        self._record.truncate(0)
        try:
            self._engine.kv.truncate(0)
        except Exception:
            _log.exception('the KV cache cannot be reset')


def _final_of(running: Running, ending: Ending) -> _Final:
    question = running.question
    if ending is Ending.ANSWERED:
        return _Final(running, running.reason)
    if ending is Ending.CANCELLED:
        return _Final(
            running, FinishReason.CANCELLED, ErrorCode.CANCELLED, 'the question was taken back'
        )
    if ending is Ending.DEADLINE:
        allowed_s = (question.deadline_ns - running.asked_ns) / 1e9
        message = f'the {allowed_s:.3g} s for this question were over before its answer was done'
        return _Final(running, FinishReason.DEADLINE, ErrorCode.DEADLINE, message)
    error = running.error
    assert error is not None
    return _Final(running, FinishReason.ERROR, error.code, error.message)


def _known(error: BaseException) -> EdgeVlmError:
    """Return an error of our own family for any error."""
    if isinstance(error, EdgeVlmError):
        return error
    if isinstance(error, SystemExit):
        return EdgeVlmError(f'the engine wanted to end the process: exit({error.code!r})')
    return EdgeVlmError(f'{type(error).__name__}: {error}')


def _nbytes(features: VisionFeatures) -> int:
    rows = getattr(features, 'rows', None)
    return int((features.states if rows is None else rows).nbytes)  # type: ignore[union-attr]
