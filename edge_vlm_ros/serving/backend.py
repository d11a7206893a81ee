"""What answers questions, whatever it is: one seam above engines, and the one place that opens it.

An engine speaks tokens and KV caches. What asks (a node, the model process, the command line, a
Python program) has no use for either: it holds a `Backend`. `VlmPipeline` is one, a model on a
chip of this machine; `ModelProcess` is one, a backend in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from edge_vlm_ros.core import FileForm, chip_named
from edge_vlm_ros.serving.settings import ServingSettings

if TYPE_CHECKING:
    from edge_vlm_ros.core import AnswerChunk, Clock, Question
    from edge_vlm_ros.serving.model_info import ModelInfo, ModelSpec
    from edge_vlm_ros.serving.step import OnStep
    from edge_vlm_ros.serving.stream import AnswerStream


class Backend(Protocol):
    """Answers questions; safe from several threads.

    Every question that `ask` takes ends in exactly one final chunk: errors, cancels, deadlines and
    a full queue too.
    """

    @property
    def info(self) -> ModelInfo | None:
        """The model that answers; None until it has been loaded once."""
        ...

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Ask, and return at once; the answer comes chunk by chunk.

        Args:
            question: Without a request_id it gets one (`AnswerStream.request_id`).
            on_chunk: Called with every chunk, in order, on any thread, also before this returns;
                must be quick. May call back.
            on_begun: Called once, on any thread, when work for the question begins, with the
                steady time in nanoseconds; must be quick.

        Raises:
            BadRequestError: A question of this request_id has not ended (DUPLICATE_REQUEST).
            NotReadyError: The backend is closed.
        """
        ...

    def cancel(self, request_id: str = '') -> int:
        """End one question early, or all (''); return how many there were.

        Their final chunks are out when this returns or shortly after.
        """
        ...

    def reset_session(self, session_id: str = '') -> int | None:
        """Forget one conversation, or all (''); return how many there were, where that is known.

        None where only another process knows.
        """
        ...

    def close(self) -> None:
        """End every question, free what answers them; safe to call twice."""
        ...


def with_request_id(question: Question) -> Question:
    """Return a question that has a request_id, its own or one made up."""
    return question if question.request_id else replace(question, request_id=uuid4().hex)


class BackendType(Protocol):
    """A class of backends, as the row of a chip names it."""

    def open(
        self,
        spec: ModelSpec,
        *,
        settings: ServingSettings,
        clock: Clock | None,
        on_work: OnStep | None,
        on_loaded: Callable[[int, int], None] | None,
    ) -> Backend:
        """Open a backend; see `open_backend`."""
        ...


def open_backend(
    spec: ModelSpec,
    *,
    settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
    clock: Clock | None = None,
    on_work: OnStep | None = None,
    on_loaded: Callable[[int, int], None] | None = None,
) -> Backend:
    """Open what answers questions on a chip. Takes seconds to minutes.

    Args:
        spec: Which model on which chip.
        settings: Bounds of queue, caches and sessions.
        clock: Steady time.
        on_work: Called on a thread of the backend's before each step of work, within long ones,
            and when there is nothing to do: a sign of life. A model process that gives none
            while there is work is taken for hanging.
        on_loaded: Called while the model loads, where it does so in parts: parts loaded, parts in
            all.

    Raises:
        ModelFileError: Files are missing, damaged or of another kind.
        DeviceError: The chip does not work.
        BadRequestError: There is no such chip, or neither the model's family nor the chip's engine
            has such an option.
    """
    backend: BackendType = _named(chip_named(spec.chip).backend)
    return backend.open(spec, settings=settings, clock=clock, on_work=on_work, on_loaded=on_loaded)


def check_spec(spec: ModelSpec) -> str:
    """Check all of a spec that can be checked at once; return what would be opened, for people.

    Raises:
        ModelFileError: Files of the model are missing, or the chip has no model of that name.
        BadRequestError: There is no such chip, or an option of a chip without files cannot be.
    """
    from edge_vlm_ros.models import find_model

    chip = chip_named(spec.chip)
    if chip.check:
        check: Callable[[ModelSpec], str] = _named(chip.check)
        return check(spec)
    if chip.file_form is FileForm.NO_FILES:
        return f'{spec.model or chip.default_model} for {chip.name}'
    files = find_model(spec.chip, spec.model, spec.model_dirs)
    return f'{files.name} for {spec.chip} from {files.folder}'


def _named(path: str) -> Any:
    """Return what is named 'module:name'."""
    module, _, name = path.partition(':')
    return getattr(import_module(module), name)
