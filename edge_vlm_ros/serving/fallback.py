"""A server and the robot's own chip as one backend: one answers where the other does not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    BadRequestError,
    CancelledError,
    Clock,
    EdgeVlmError,
    ErrorCode,
    NotReadyError,
    Question,
    SteadyClock,
)
from edge_vlm_ros.serving.asked import Asked, Side
from edge_vlm_ros.serving.backend import Backend, with_request_id
from edge_vlm_ros.serving.circuit import Circuit
from edge_vlm_ros.serving.dialogues import Dialogues
from edge_vlm_ros.serving.handover import FallbackSettings, Order, is_outage, problem
from edge_vlm_ros.serving.letting_go import LetsGo
from edge_vlm_ros.serving.model_info import ModelInfo
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.standing import OnStanding, Standing, TellsStanding
from edge_vlm_ros.serving.step import CHIP_THREAD
from edge_vlm_ros.serving.stream import AnswerStream

_log = logging.getLogger(__name__)


class FallbackPipeline:
    """A `Backend` around two: servers, and a model on this machine's chip that is kept warm.

    Another one is asked only before the first word; whose answer it is stands in `Answer.chip` and
    `Answer.model`, and why in `Answer.message`. Conversations go over with their words and frames
    (`Question.earlier`). Questions go to the chip at once while no server answers: as far as
    `remote` knows that itself (`TellsStanding`), and for a growing pause after it was too slow.

    Owns both.

    Args:
        remote: Asks servers.
        local: The chip's.
        options: When the other one is asked.
        settings: Bounds of conversations.
        clock: Steady time.
        circuit: What remembers that the servers failed.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        remote: Backend,
        local: Backend,
        options: FallbackSettings = FallbackSettings(),  # noqa: B008 (frozen)
        *,
        settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
        clock: Clock | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        self._remote = Side('remote', remote)
        self._local = Side('local', local)
        self._options = options
        self._clock = clock or SteadyClock()
        self._circuit = circuit or Circuit(self._clock)
        self._dialogues = Dialogues(self._clock, settings)
        self._open: dict[str, Asked] = {}
        self._jobs: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._on_standing: OnStanding | None = None
        self._outage, self._since_ns = '', 0
        self._told: Standing | None = None
        self._thread = threading.Thread(target=self._watch, name=CHIP_THREAD, daemon=True)
        self._thread.start()
        if isinstance(remote, TellsStanding):
            remote.listen_standing(self._remote_changed)

    @property
    def info(self) -> ModelInfo | None:
        """The model that would answer the next question."""
        with self._changed:
            return self._now().info

    @property
    def standing(self) -> Standing:
        """Who would answer the next question, and since when and why it is not a server."""
        with self._changed:
            return self._now()

    def listen_standing(self, on_standing: OnStanding) -> None:
        """Have every change of the standing given to `on_standing`; see `TellsStanding`."""
        with self._changed:
            self._on_standing = on_standing
            self._told = None
            self._changed.notify_all()

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Ask, and return at once; see `Backend.ask`.

        Raises:
            BadRequestError: A question of this request_id has not ended (DUPLICATE_REQUEST).
            NotReadyError: It is closed.
        """
        question = with_request_id(question)
        if not question.asked_ns:
            question = replace(question, asked_ns=self._clock.now_ns())
        stream = AnswerStream(
            question.request_id,
            clock=self._clock,
            cancel=self.cancel,
            on_chunk=on_chunk,
            on_begun=on_begun,
        )
        dialogue = self._dialogues.get(question.session_id)
        with self._changed:
            if self._is_closed:
                raise NotReadyError('the backend is closed')
            if question.request_id in self._open:
                raise BadRequestError(
                    f'a question with request_id {question.request_id!r} is still running',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            asked = Asked(question, stream, dialogue, self._plan())
            self._open[question.request_id] = asked
        self._start(asked)
        return stream

    def cancel(self, request_id: str = '') -> int:
        """End one question early, or all (''); return how many there were.

        Whoever is asked is told; a question between the two ends before this returns.
        """
        with self._changed:
            chosen = [each for name, each in self._open.items() if request_id in {'', name}]
            for asked in chosen:
                asked.is_cancelled = True
            sides = [each.side if each.attempt is not None else None for each in chosen]
        number = 0
        for asked, side in zip(chosen, sides, strict=True):
            name = asked.question.request_id
            if side is not None and side.backend.cancel(name):
                number += 1
            else:
                number += self._end(asked, CancelledError('the question was taken back'))
        return number

    def reset_session(self, session_id: str = '') -> int:
        """Forget one conversation, or all (''); return how many there were."""
        for side in (self._remote, self._local):
            side.backend.reset_session(session_id)
        return self._dialogues.reset(session_id)

    def close(self) -> None:
        """End every question, close both backends; safe to call twice."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            self._changed.notify_all()
        self._remote.backend.close()
        self._local.backend.close()
        for asked in list(self._open.values()):
            self._end(asked, CancelledError('the backend was closed'))
        if self._thread is not threading.current_thread():
            self._thread.join()

    def let_go(self) -> None:
        """Free the chip beside a step that does not end; see `LetsGo`."""
        if isinstance(self._local.backend, LetsGo):
            self._local.backend.let_go()

    # --- who is asked ----------------------------------------------------------------------------

    def _plan(self) -> list[Side]:
        """List who is to be asked; the caller holds the lock, as for all that follows here."""
        is_down = bool(self._remote_outage()) or self._circuit.is_open()
        if self._options.order is Order.LOCAL_FIRST:
            return [self._local] if is_down else [self._local, self._remote]
        return [self._local] if is_down else [self._remote, self._local]

    def _remote_outage(self) -> str:
        remote = self._remote.backend
        return remote.standing.outage if isinstance(remote, TellsStanding) else ''

    def _now(self) -> Standing:
        outage = self._remote_outage() or self._circuit.why
        if bool(outage) != bool(self._outage):
            self._since_ns = time.time_ns() if outage else 0
        self._outage = outage
        is_local = bool(outage) or self._options.order is Order.LOCAL_FIRST
        side = self._local if is_local else self._remote
        return Standing(side.backend.info, outage, self._since_ns, is_spare=bool(outage))

    def _is_held(self, asked: Asked) -> bool:
        """Whether an answer has to be whole before anybody hears of it: it may not be the one."""
        may_go_on = asked.side is self._local and self._remote in asked.plan
        return may_go_on and bool(asked.question.choices)

    def _why_go_on(self, asked: Asked, answer: Answer) -> str:
        """Say why the next one is to be asked; '' = this is the answer."""
        is_over = self._is_closed or asked.is_cancelled or asked.has_said
        if is_over or not asked.plan:
            return ''
        if answer.success:
            return self._options.doubt(answer) if self._is_held(asked) else ''
        return problem(answer, is_local=asked.side is self._local)

    # --- one question ----------------------------------------------------------------------------

    def _start(self, asked: Asked) -> None:
        """Ask the next one of the plan."""
        with self._changed:
            if self._open.get(asked.question.request_id) is not asked:
                return
            side = asked.side = asked.plan.pop(0)
            attempt = asked.attempt = object()
            if side is self._remote:
                self._circuit.try_one()
                asked.due_ns = self._options.due_ns(asked.question, self._clock.now_ns())
                self._changed.notify_all()
            turns = asked.dialogue.turns
            earlier = turns if asked.is_retold else asked.dialogue.unknown_to(side.name)
        question = replace(asked.question, earlier=earlier)
        try:
            side.backend.ask(question, partial(self._on_chunk, asked, attempt), asked.stream.begin)
        except EdgeVlmError as error:
            failed = asked.failed(error, self._clock.now_ns())
            self._on_chunk(asked, attempt, AnswerChunk(question.request_id, 0, '', failed))
        if asked.is_cancelled:  # Before it was there to be cancelled, perhaps.
            side.backend.cancel(question.request_id)

    def _on_chunk(self, asked: Asked, attempt: object, chunk: AnswerChunk) -> None:
        """Take a chunk of whoever was asked, on its thread."""
        with self._changed:
            if asked.attempt is not attempt:
                return  # Late words of one that was given up.
            if chunk.answer is not None:
                asked.attempt, asked.due_ns = None, 0
                self._note_remote(asked, chunk.answer)
            elif self._is_held(asked):
                return
            else:
                asked.has_said, asked.due_ns = True, 0
                if asked.side is self._remote:
                    self._remote_answers()
        if chunk.answer is not None:
            self._settle(asked, chunk, chunk.answer)
        else:
            asked.stream.relay(chunk)

    def _settle(self, asked: Asked, chunk: AnswerChunk, answer: Answer) -> None:
        """Go on to the next one, or give out an answer."""
        with self._changed:
            if self._is_forgotten(asked, answer):
                assert asked.side is not None
                asked.is_retold = True
                asked.plan.insert(0, asked.side)
                self._do(partial(self._start, asked))
                return
            why = self._why_go_on(asked, answer)
            if why:
                asked.reasons.append(asked.reason(why))
                asked.best = answer if answer.success else asked.best
                self._do(partial(self._start, asked))
                return
        self._deliver(asked, chunk, answer)

    def _is_forgotten(self, asked: Asked, answer: Answer) -> bool:
        """Whether the one asked remembers a conversation no more that is known here."""
        if self._is_closed or asked.is_cancelled or asked.has_said or asked.is_retold:
            return False
        is_unknown = answer.error_code is ErrorCode.UNKNOWN_SESSION
        return is_unknown and bool(asked.dialogue.turns)

    def _note_remote(self, asked: Asked, answer: Answer) -> None:
        """Take note of whether the servers answer."""
        if asked.side is not self._remote:
            return
        if answer.success:
            self._remote_answers()
        elif is_outage(answer) and not self._remote_outage():
            self._circuit.fail(answer.message or answer.error_code.name)
            self._changed.notify_all()

    def _remote_answers(self) -> None:
        if self._circuit.why:
            self._circuit.succeed()
            self._changed.notify_all()

    def _deliver(self, asked: Asked, chunk: AnswerChunk, answer: Answer) -> None:
        """Give out an answer, or the one that could be better where there is no better."""
        question, side, best = asked.question, asked.side, asked.best
        assert side is not None
        is_worse = not answer.success and not asked.has_said
        if best is not None and is_worse and answer.error_code is not ErrorCode.CANCELLED:
            asked.reasons.append(asked.reason(answer.message))
            side, answer = self._local, best
        message = '; '.join(filter(None, (*asked.reasons, answer.message)))
        final = replace(answer, message=message)
        with self._changed:
            if self._open.get(question.request_id) is not asked:
                return
            del self._open[question.request_id]
        if final.success:
            self._dialogues.add(asked.dialogue, question, final.text, side.name)
        if asked.has_said:
            asked.stream.relay(replace(chunk, answer=final))
        else:
            asked.stream.finish(lambda _: final, final.text)

    def _end(self, asked: Asked, error: EdgeVlmError) -> int:
        """End a question that nobody is asked; return 1, or 0 where it is over already."""
        with self._changed:
            if self._open.get(asked.question.request_id) is not asked:
                return 0
            del self._open[asked.question.request_id]
            asked.attempt, asked.due_ns = None, 0
        now_ns = self._clock.now_ns()
        return int(asked.stream.finish(lambda text: asked.failed(error, now_ns, text)))

    # --- its own thread --------------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        """Have something done soon, outside the lock and not on a backend's thread."""
        self._jobs.append(job)
        self._changed.notify_all()

    def _watch(self) -> None:
        """Hand over what has to be handed over, until closed; tell of each new standing."""
        while True:
            with self._changed:
                if self._is_closed:
                    return
                late = self._take_late()
                jobs, self._jobs = self._jobs, []
                news = self._news()
                if not (late or jobs or news):
                    self._changed.wait(self._wait_s())
                    continue
            if news is not None:
                self._tell(*news)
            for asked, error in late:
                self._remote.backend.cancel(asked.question.request_id)
                failed = asked.failed(error, self._clock.now_ns())
                self._settle(asked, AnswerChunk(failed.request_id, 0, '', failed), failed)
            for job in jobs:
                job()

    def _take_late(self) -> list[tuple[Asked, EdgeVlmError]]:
        """Give up on servers without a word in time; return their questions, and why."""
        now_ns = self._clock.now_ns()
        late: list[tuple[Asked, EdgeVlmError]] = []
        for asked in self._open.values():
            if 0 < asked.due_ns <= now_ns:
                asked.attempt, asked.due_ns = None, 0
                waited_s = (now_ns - asked.question.asked_ns) / NS_PER_S
                why = f'no word of an answer within {waited_s:.1f} s'
                late.append((asked, NotReadyError(why)))
                self._circuit.fail(why)
        return late

    def _wait_s(self) -> float | None:
        due_ns = min((each.due_ns for each in self._open.values() if each.due_ns), default=0)
        if not due_ns:
            return None
        return max(0, due_ns - self._clock.now_ns()) / NS_PER_S

    def _remote_changed(self, _standing: Standing) -> None:
        with self._changed:
            if not self._remote_outage():
                self._circuit.succeed()
            self._changed.notify_all()

    def _news(self) -> tuple[OnStanding, Standing] | None:
        standing = self._now()
        if self._on_standing is None or standing == self._told:
            return None
        self._told = standing
        return self._on_standing, standing

    def _tell(self, on_standing: OnStanding, standing: Standing) -> None:
        try:
            on_standing(standing)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_standing failed')
