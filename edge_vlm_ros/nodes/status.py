"""How the vlm node is: what the state topic, diagnostics and refusals say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from edge_vlm_ros.serving import EnginePhase

if TYPE_CHECKING:
    from edge_vlm_ros.serving import EngineState

Lifecycle: TypeAlias = Literal['unconfigured', 'inactive', 'active', 'deactivating', 'finalized']
"""The primary states of a lifecycle node, as `lifecycle_msgs/State` names them.

And one on the way: 'deactivating', while the requests that are open may end (`Draining`).
"""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How the node is at one moment.

    Attributes:
        lifecycle: The state.
        chip: The parameter.
        model: The parameter, '' = the chip's default; None before the parameters were read.
        device_ids: The parameter.
        engine: Where the model process stands; None while there is none.
        held: Questions that wait for the model to be loaded.
        failure: Why the start failed, or the model process gave up; '' = neither.
    """

    lifecycle: Lifecycle
    chip: str
    model: str | None = None
    device_ids: tuple[int, ...] = ()
    engine: EngineState | None = None
    held: int = 0
    failure: str = ''

    @property
    def state(self) -> str:
        """For people and launch files: a word, ': ' and more where there is more.

        `failed: <why>`, `stalled: no sign of life for 3.2 s in prefill of request x`, and
        `loading: 12 of 30 parts` where the engine reports it.
        """
        if self.failure:
            return f'failed: {self.failure}'
        if self.lifecycle in {'deactivating', 'finalized'}:
            return self.lifecycle
        if self.engine is None:
            return 'unconfigured'
        if self.engine.phase is EnginePhase.STARTING:
            word = 'restarting' if self.engine.restarts else 'loading'
            return word if self.engine.loading is None else f'{word}: {self.engine.loading}'
        if self.engine.phase is EnginePhase.STALLED:
            return f'stalled: {self.engine.message}'
        return 'ready' if self.lifecycle == 'active' else 'inactive'

    @property
    def refusal(self) -> str:
        """Why no request is taken; '' = requests are taken."""
        if self.lifecycle == 'active':
            return ''
        return self.failure or f'the node is {self.lifecycle}'

    @property
    def hardware(self) -> str:
        """Chip and device numbers."""
        return f'{self.chip} {",".join(map(str, self.device_ids))}'.strip()
