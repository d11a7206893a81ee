"""The `Backend` of the chip `remote`: questions that servers answer, one or several at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from edge_vlm_ros.core import (
    NS_PER_S,
    AnswerChunk,
    BadRequestError,
    CancelledError,
    Clock,
    EdgeVlmError,
    ErrorCode,
    NotReadyError,
    Question,
    SteadyClock,
    check_question,
    read_options,
)
from edge_vlm_ros.remote.addresses import ServerAddress, read_servers
from edge_vlm_ros.remote.client import ServerClient
from edge_vlm_ros.remote.key import read_key
from edge_vlm_ros.remote.messages import check_sampling
from edge_vlm_ros.remote.options import RemoteOptions
from edge_vlm_ros.scheduling import Ended, Ending, Rejected
from edge_vlm_ros.serving.backend import with_request_id
from edge_vlm_ros.serving.endings import error_of, known_error
from edge_vlm_ros.serving.model_info import ModelSpec, RemoteModelInfo
from edge_vlm_ros.serving.remote.answering import RemoteAnswering
from edge_vlm_ros.serving.remote.desk import RemoteDesk
from edge_vlm_ros.serving.remote.fleet import Fleet, FleetHealth
from edge_vlm_ros.serving.remote.loop import LoopThread
from edge_vlm_ros.serving.remote.run import RemoteRun
from edge_vlm_ros.serving.remote.spoken import Spoken
from edge_vlm_ros.serving.sessions import Sessions
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.step import CHIP_THREAD, REST, OnStep, Step
from edge_vlm_ros.serving.stream import AnswerStream

if TYPE_CHECKING:
    from edge_vlm_ros.serving.backend import BackendType

_log = logging.getLogger(__name__)

CHIP = 'remote'
_BEAT_S = 0.25
_Ended: TypeAlias = tuple[RemoteRun, EdgeVlmError | None]
_CLOSE_S = 5.0


class RemotePipeline:
    """Answers questions by OpenAI-compatible servers; safe from several threads.

    Frames leave this machine. Every question that `ask` takes ends in exactly one final chunk.

    One thread runs an asyncio loop: a task for each question that is answered, one that asks the
    servers that are down whether they are back, and one that gives signs of life. Who is answered
    and who waits is decided at once, on the thread that asks or cancels.

    Args:
        servers: The preferred one first.
        client: For the loop; not started.
        model: As the servers call it; '' = the first one that each of them lists.
        options: What was chosen.
        settings: Bounds of queue and sessions.
        clock: Steady time.
        on_work: Called on the loop's thread while questions are answered, and when none is.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        servers: tuple[ServerAddress, ...],
        client: ServerClient,
        *,
        model: str,
        options: RemoteOptions,
        settings: ServingSettings,
        clock: Clock,
        on_work: OnStep | None,
    ) -> None:
        self._addresses = servers
        self._client = client
        self._options = options
        self._clock = clock
        self._on_work = on_work
        self._sessions = Sessions(
            clock,
            Spoken,
            max_sessions=settings.max_sessions,
            max_bytes=settings.max_session_bytes,
            ttl_s=settings.session_ttl_s,
            max_turns=settings.max_session_turns,
        )
        self._fleet = Fleet(servers, client, clock, model)
        self._answering = RemoteAnswering(
            client=client,
            fleet=self._fleet,
            options=options,
            sessions=self._sessions,
            clock=clock,
            model=model,
        )
        self._desk = RemoteDesk(settings, options.parallel)
        self._runs: dict[str, RemoteRun] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # By the run's identity.
        self._lock = threading.Lock()
        self._is_closed = False
        self._load_s = 0.0
        self._thread = LoopThread(CHIP_THREAD, self._serve)

    @classmethod
    def open(
        cls,
        spec: ModelSpec,
        *,
        settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
        clock: Clock | None = None,
        on_work: OnStep | None = None,
        on_loaded: Callable[[int, int], None] | None = None,
    ) -> RemotePipeline:
        """Look at the servers and be ready; servers that are gone may come later.

        Args:
            spec: `model` as the servers call it; `options` are `RemoteOptions`.
            settings: Bounds of queue and sessions.
            clock: Steady time.
            on_work: See `open_backend`.
            on_loaded: Not called: nothing loads.

        Raises:
            BadRequestError: An option is unknown or cannot be; no server is named; the key is not
                where it should be, or would travel unencrypted.
        """
        del on_loaded
        options = read_options(RemoteOptions, spec.options, f'chip {CHIP}')
        servers = read_servers(options.servers)
        client = ServerClient(
            key=read_key(options, servers),
            ca_file=options.ca_file,
            proxy_from_env=options.proxy_from_env,
            connect_s=options.connect_s,
        )
        _log.warning(
            'frames and questions leave this machine: they are sent to %s',
            ', '.join(map(str, servers)),
        )
        pipeline = cls(
            servers,
            client,
            model=spec.model,
            options=options,
            settings=settings,
            clock=clock or SteadyClock(),
            on_work=on_work,
        )
        pipeline.start()
        return pipeline

    def start(self) -> None:
        """Begin; returns when each server was asked what it has, or took too long to say.

        Raises:
            EdgeVlmError: The loop cannot run.
        """
        started_ns = self._clock.now_ns()
        self._thread.start()
        self._load_s = round((self._clock.now_ns() - started_ns) / NS_PER_S, 3)

    @property
    def info(self) -> RemoteModelInfo:
        """The model that the servers answer with."""
        return RemoteModelInfo(
            model=self._fleet.first_model,
            chip=CHIP,
            max_images=self._options.max_images,
            load_s=self._load_s,
            servers=tuple(map(str, self._addresses)),
            context_tokens=self._fleet.context_tokens or self._options.context_tokens,
        )

    @property
    def health(self) -> FleetHealth:
        """How the servers are."""
        return self._fleet.health

    def listen_health(self, listener: Callable[[FleetHealth], None] | None) -> None:
        """Have `listener` called, on the loop's thread, when all are down and when one is back."""
        self._fleet.listen(listener)

    def conversation(self, session_id: str) -> Spoken:
        """Return what was said and shown in a session; an empty one where there is none."""
        return self._sessions.peek(session_id)

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Ask; see `Backend.ask`.

        Raises:
            BadRequestError: A running question has this request_id (DUPLICATE_REQUEST), or a text
                is above its limit (`core.request_limits`).
            NotReadyError: The pipeline is closed.
        """
        check_question(question)
        question = with_request_id(question)
        stream = AnswerStream(
            question.request_id,
            clock=self._clock,
            cancel=self.cancel,
            on_chunk=on_chunk,
            on_begun=on_begun,
        )
        run = RemoteRun(question, stream, self._clock.now_ns())
        refusal = self._refusal(question)
        asked = run.asked
        ended: list[_Ended]
        with self._lock:
            self._check_new(question.request_id)
            if refusal is not None:
                ended = [(run, refusal)]
            else:
                self._runs[question.request_id] = run
                ended = self._apply(self._desk.ask(asked))
                self._start_next()
                self._thread.call(self._watch_deadline, run)
        self._deliver(ended)
        return stream

    def cancel(self, request_id: str = '') -> int:
        """End one question early, or all (''); return how many waited or ran.

        Their final chunks are out when this returns; their connections are closed at once.
        """
        with self._lock:
            # From the back: none of those that wait is started only to be ended.
            chosen = [request_id] if request_id else self._desk.request_ids[::-1]
            ended = [each for name in chosen for each in self._end(name, Ending.CANCELLED)]
        self._deliver(ended)
        return len(ended)

    def reset_session(self, session_id: str = '') -> int:
        """Forget one conversation, or all (''); return how many there were."""
        return self._sessions.reset(session_id)

    def close(self) -> None:
        """End every question, close every connection; safe to call twice."""
        with self._lock:
            self._is_closed = True
            closed = CancelledError('the pipeline was closed')
            ended: list[_Ended] = [(run, closed) for run in self._runs.values()]
            for run in self._runs.values():
                run.is_over = True
            self._runs.clear()
        self._deliver(ended)
        self._thread.stop(_CLOSE_S)

    def __enter__(self) -> RemotePipeline:  # noqa: PYI034 (Self comes with Python 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- under the lock --------------------------------------------------------------------------

    def _check_new(self, request_id: str) -> None:
        if self._is_closed:
            raise NotReadyError('the pipeline is closed')
        if request_id in self._runs:
            raise BadRequestError(
                f'request_id {request_id!r} is that of a running question',
                ErrorCode.DUPLICATE_REQUEST,
            )

    def _end(self, request_id: str, ending: Ending) -> list[_Ended]:
        ended = self._apply(self._desk.end(request_id, ending))
        self._start_next()
        return ended

    def _apply(self, notices: Iterable[Ended | Rejected]) -> list[_Ended]:
        ended: list[_Ended] = []
        for notice in notices:
            run = self._runs.pop(notice.request_id)
            run.is_over = True
            ended.append((run, error_of(run, notice)))
            self._thread.call(self._drop, run)
        return ended

    def _start_next(self) -> None:
        for request_id in self._desk.take_started():
            self._thread.call(self._start_run, self._runs[request_id])

    # --- answers, outside the lock ---------------------------------------------------------------

    def _refusal(self, question: Question) -> EdgeVlmError | None:
        try:
            check_sampling(question.sampling, self._options)
        except EdgeVlmError as error:
            return error
        return None

    def _deliver(self, ended: Iterable[_Ended]) -> None:
        for run, error in ended:
            if error is None and run.talk is not None:
                self._sessions.put(run.question.session_id, *run.talk)
            info = self.info
            run.finish(error, now_ns=self._clock.now_ns(), model=info.model, chip=info.chip)

    # --- the loop's thread -----------------------------------------------------------------------

    async def _serve(self) -> None:
        await self._client.start()
        try:
            await self._fleet.look_at_all()
            self._thread.is_ready()
            helpers = [
                asyncio.create_task(self._fleet.keep_looking()),
                asyncio.create_task(self._beat()),
            ]
            await self._thread.stopped()
            tasks = [*helpers, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._client.close()
            await self._thread.loop.shutdown_default_executor()

    async def _beat(self) -> None:
        """Give signs of life while a question is answered, and say once that none is."""
        is_resting = False
        while self._on_work is not None:
            with self._lock:
                running = self._desk.running
            if running or not is_resting:
                self._on_work(Step('answer', running[0]) if running else REST)
            is_resting = not running
            await asyncio.sleep(_BEAT_S)

    def _start_run(self, run: RemoteRun) -> None:
        if run.is_over or self._thread.is_stopping:
            return
        self._tasks[id(run)] = self._thread.loop.create_task(self._answer(run))

    def _drop(self, run: RemoteRun) -> None:
        """Close the connection of a question that is over."""
        task = self._tasks.get(id(run))
        if task is not None:
            task.cancel()

    def _watch_deadline(self, run: RemoteRun) -> None:
        deadline_ns = run.question.deadline_ns
        if not deadline_ns or run.is_over:
            return
        left_s = (deadline_ns - self._clock.now_ns()) / NS_PER_S
        if left_s > 0:
            self._thread.loop.call_later(min(left_s, 3600.0), self._watch_deadline, run)
            return
        self._end_if_same(run, Ending.DEADLINE)

    async def _answer(self, run: RemoteRun) -> None:
        run.begin(self._clock.now_ns())
        if self._on_work is not None:
            self._on_work(Step('answer', run.question.request_id))
        ending = Ending.FAILED
        try:
            await self._answering.answer(run)
            ending = Ending.ANSWERED
        except asyncio.CancelledError:  # Whoever cancelled it has ended it, or does so now.
            run.error = CancelledError('the request to the server was given up')
        except Exception as error:  # noqa: BLE001 (every question ends)
            if not isinstance(error, EdgeVlmError):
                _log.exception('question %s failed', run.question.request_id)
            run.error = known_error(error)
        finally:
            self._tasks.pop(id(run), None)
        self._end_if_same(run, ending)

    def _end_if_same(self, run: RemoteRun, ending: Ending) -> None:
        """End a question, unless it is over: its request_id may be another's by now."""
        with self._lock:
            name = run.question.request_id
            ended = self._end(name, ending) if self._runs.get(name) is run else []
        self._deliver(ended)


if TYPE_CHECKING:  # `open_backend` finds it by name, where no type checker looks.
    _is_a_backend: BackendType = RemotePipeline
