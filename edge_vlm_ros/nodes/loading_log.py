"""The model process as the node sees it: questions wait here until the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import EngineLimits, NotReadyError
from edge_vlm_ros.serving import EnginePhase, EngineState, LoadProgress, ModelProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.core import AnswerChunk, Question
    from edge_vlm_ros.serving import ModelSpec, ServingSettings


class LoadingLog:
    """Picks the steps of a load that are worth a line: each tenth, not each of thirty layers."""

    def __init__(self) -> None:
        self._tenth = 0

    def is_worth_a_line(self, loading: LoadProgress) -> bool:
        """Tell whether a load has come into another tenth than when this was asked last."""
        before, self._tenth = self._tenth, 10 * loading.loaded // loading.total
        return self._tenth not in {0, before}


class EngineLink:
    """Starts the model process, holds questions while it loads, and follows its state.

    All methods belong to the executor's thread. `on_chunk` is called on the process's reader
    thread; states are handed over to the executor's thread by `hand_over`.

    Args:
        spec: Which model on which chip.
        settings: How much the process keeps and queues.
        on_chunk: Given every chunk.
        on_state: Given every state, on the executor's thread.
        hand_over: Runs a callable on the executor's thread; may be called from any thread.
    """

    def __init__(
        self,
        spec: ModelSpec,
        settings: ServingSettings,
        *,
        on_chunk: Callable[[AnswerChunk], None],
        on_state: Callable[[EngineState], None],
        hand_over: Callable[[Callable[[], None]], None],
    ) -> None:
        self._on_state = on_state
        self._hand_over = hand_over
        self._held: dict[str, Question] = {}
        self._is_closed = False
        self._state = EngineState(EnginePhase.STARTING, message='starting the model process')
        self._process = ModelProcess(
            spec, on_chunk=on_chunk, on_state=self._state_came, settings=settings
        )

    @property
    def state(self) -> EngineState:
        """Where the model process stands."""
        return self._state

    @property
    def limits(self) -> EngineLimits | None:
        """The model's bounds; None until it has been loaded once."""
        return self._state.info.limits if self._state.info is not None else None

    @property
    def held(self) -> int:
        """Questions that wait for the model to be loaded."""
        return len(self._held)

    def start(self) -> None:
        """Start the model process and return at once; the model loads meanwhile."""
        self._process.start()

    def ask(self, question: Question) -> None:
        """Ask, or hold the question until the model is loaded.

        Raises:
            EdgeVlmError: The question is refused.
        """
        state = self._process.state  # `_state` lags behind by a turn of the executor
        if state.phase is EnginePhase.STARTING:
            self._held[question.request_id] = question
        elif state.is_ready:
            self._process.ask(question)
        else:
            raise NotReadyError(f'the model is not loaded: {state.message}')

    def cancel(self, request_id: str) -> bool:
        """Take a question back; tell whether it was only held, so that no chunk will come."""
        if self._held.pop(request_id, None) is not None:
            return True
        self._process.cancel(request_id)
        return False

    def reset_session(self, session_id: str) -> None:
        """Forget a conversation, or all ('')."""
        self._process.reset_session(session_id)

    def close(self) -> None:
        """End the model process; no chunk and no state comes after this. Safe to call twice."""
        self._is_closed = True
        self._held.clear()
        self._process.close()

    def _state_came(self, state: EngineState) -> None:
        self._hand_over(lambda: self._take_state(state))

    def _take_state(self, state: EngineState) -> None:
        if self._is_closed:
            return
        self._state = state
        if state.is_ready:
            held, self._held = self._held, {}
            for question in held.values():
                self._process.ask(question)
        self._on_state(state)
