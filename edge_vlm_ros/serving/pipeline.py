"""The product without ROS: ask questions about frames, get streamed answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    NS_PER_S,
    AnswerChunk,
    Clock,
    Prefix,
    Question,
    ShownAs,
    SteadyClock,
    StoredFrame,
    check_question,
)
from edge_vlm_ros.engines import OnLoaded, ignore_progress
from edge_vlm_ros.scheduling import SchedulerSettings
from edge_vlm_ros.serving.ahead import OnAhead
from edge_vlm_ros.serving.backend import with_request_id
from edge_vlm_ros.serving.conversation import SessionStore
from edge_vlm_ros.serving.load_stop import LoadStop
from edge_vlm_ros.serving.loading import LoadedModel, load_model
from edge_vlm_ros.serving.model_info import ChipModelInfo, ModelSpec
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.step import OnStep
from edge_vlm_ros.serving.stream import AnswerStream
from edge_vlm_ros.serving.worker import ChipWorker

if TYPE_CHECKING:
    from edge_vlm_ros.serving.ahead import PreparesAhead
    from edge_vlm_ros.serving.backend import BackendType
    from edge_vlm_ros.serving.letting_go import LetsGo


class VlmPipeline:
    """The `Backend` of a chip: a loaded model that answers questions; safe from several threads.

    ::

        with VlmPipeline.open(chip='cpu', model='demo') as vlm:
            for chunk in vlm.ask(Question('What do you see?', frames=(frame,))):
                print(chunk.delta, end='')

    Every question that `ask` takes ends in exactly one final chunk: errors, cancels and a full
    queue too.

    A question is on record in two places here, each under the worker's lock: with the worker, who
    keeps what it is about and where its answer goes, and in the scheduler, who keeps only whose
    turn it is.
    """

    def __init__(self, worker: ChipWorker, sessions: SessionStore) -> None:
        self._worker = worker
        self._sessions = sessions

    @classmethod
    def open(  # noqa: PLR0913 (keywords)
        cls,
        spec: ModelSpec | None = None,
        *,
        chip: str = 'cpu',
        model: str = '',
        device_ids: Sequence[int] = (),
        model_dirs: Sequence[Path] = (),
        options: Mapping[str, object] | None = None,
        settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
        clock: Clock | None = None,
        on_work: OnStep | None = None,
        on_loaded: OnLoaded | None = None,
    ) -> VlmPipeline:
        """Load a model and warm it up. Takes seconds to minutes.

        Args:
            spec: Which model; instead of the five keywords after it.
            chip: 'cpu', 'scripted', ...
            model: Catalogue name or path; '' = the chip's default.
            device_ids: Devices of that kind; empty = the first one.
            model_dirs: Folders to look in before the usual ones.
            options: The family's and the engine's own, by name.
            settings: Bounds of queue, caches and sessions.
            clock: Steady time.
            on_work: Called on the worker's thread before each work item, within long ones, and
                when there is nothing to do: a sign of life.
            on_loaded: Called on the worker's thread while the model loads, where it does so in
                parts: parts loaded, parts in all. It may stop the load, see `OnLoaded`.

        Raises:
            ModelFileError: Files are missing, damaged or of another kind.
            DeviceError: There is no engine for the chip, or the chip does not work.
            CancelledError: `on_loaded` stopped it.
            KeyboardInterrupt: What a signal raised meanwhile, after the part that was being loaded
                is loaded, and all of it freed again; a second signal does not wait for that.
        """
        wanted = spec or ModelSpec(
            chip, model, tuple(device_ids), tuple(model_dirs), dict(options or {})
        )

        stop = LoadStop(on_loaded or ignore_progress)

        def load() -> LoadedModel:
            return load_model(wanted, stop)

        return cls.start(load, settings, clock=clock, on_work=on_work, stop=stop)

    @classmethod
    def start(
        cls,
        load: Callable[[], LoadedModel],
        settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
        *,
        clock: Clock | None = None,
        on_work: OnStep | None = None,
        stop: LoadStop | None = None,
    ) -> VlmPipeline:
        """Start with an engine and a family of one's own; `load` runs on the chip's thread.

        Where `load` looks at `stop` between its parts, it is stopped there if it has to be.

        Raises:
            EdgeVlmError: Whatever `load` or the first run of the model raises.
        """
        clock = clock or SteadyClock()
        sessions = SessionStore(
            clock,
            max_sessions=settings.max_sessions,
            max_bytes=settings.max_session_bytes,
            ttl_s=settings.session_ttl_s,
            max_turns=settings.max_session_turns,
        )
        worker = ChipWorker(
            load,
            clock=clock,
            sessions=sessions,
            settings=SchedulerSettings(
                settings.max_waiting,
                settings.max_cached_frames,
                settings.max_cached_bytes,
                settings.queue_policy,
                settings.newest_wins,
                settings.ahead_duty,
                round(settings.live_s * NS_PER_S),
            ),
            on_work=on_work,
            stop=stop,
        )
        worker.start()
        return cls(worker, sessions)

    @property
    def info(self) -> ChipModelInfo:
        """The model that is loaded."""
        return self._worker.info

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Ask; the answer comes chunk by chunk.

        Args:
            question: Without a request_id it gets one (`AnswerStream.request_id`).
            on_chunk: Called with every chunk, in order, on the thread that makes it; must be
                quick. May call back.
            on_begun: Called once when work for it begins, with the steady time in nanoseconds, on
                the chip's thread; must be quick.

        Raises:
            BadRequestError: A running question has this request_id (DUPLICATE_REQUEST), or a text
                is above its limit (`core.request_limits`).
            NotReadyError: The pipeline is closed.
        """
        check_question(question)
        return self._worker.ask(with_request_id(question), on_chunk, on_begun)

    def offer_frames(self, frames: Sequence[StoredFrame], shown_as: ShownAs | None = None) -> None:
        """Have frames prepared and encoded ahead of any question, while nobody asks.

        A question that then shows the same frames in the same way encodes nothing, and its answer
        is the one it would have got without. It never waits longer than for the work item under
        way. Of each camera the newest offer counts; frames that cannot be prepared or encoded are
        logged and left alone.

        Args:
            frames: As a question would show them, oldest first; not changed meanwhile.
            shown_as: As `Question.shown_as`: a frame of a group that the question will show is
                offered as one AMONG_OTHERS.

        Raises:
            NotReadyError: The pipeline is closed.
        """
        self._worker.offer(frames, shown_as)

    def want_prefix(self, prefix: Prefix | None) -> None:
        """Have a prompt up to the question's words put into the KV cache while nobody asks.

        A question that shows these frames in this way then prefills its words only; see
        `PreparesAhead.want_prefix`.

        Raises:
            NotReadyError: The pipeline is closed.
        """
        self._worker.want(prefix)

    def listen_ahead(self, on_ahead: OnAhead) -> None:
        """Have reports of what is ready given to `on_ahead`, on the chip's thread."""
        self._worker.listen_ahead(on_ahead)

    def cancel(self, request_id: str = '') -> int:
        """End one question early, or all (''); return how many waited or ran.

        Their final chunks are out when this returns; the chip stops after its present step, or
        within it where the engine can give up a prefill half-way.
        """
        return self._worker.cancel(request_id)

    def reset_session(self, session_id: str = '') -> int:
        """Forget one conversation, or all (''); return how many there were."""
        return self._sessions.reset(session_id)

    def close(self, timeout_s: float = 10.0) -> None:
        """End every question, free the chip; safe to call twice. Waits for the present step."""
        self._worker.close(timeout_s)

    def let_go(self) -> None:
        """Free the chip beside a step that does not end; see `LetsGo`."""
        self._worker.loading.let_go()

    def __enter__(self) -> VlmPipeline:  # noqa: PYI034 (Self comes with Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


if TYPE_CHECKING:  # `open_backend` finds it by name, where no type checker looks.
    _is_a_backend: BackendType = VlmPipeline
    _prepares_ahead: type[PreparesAhead] = VlmPipeline
    _lets_go: type[LetsGo] = VlmPipeline
