"""How the vlm node is: what the state topic, diagnostics and refusals say of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias

from edge_vlm_ros.core import NS_PER_S
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
        servers: Where images are sent; none = they stay on this machine.
    """

    lifecycle: Lifecycle
    chip: str
    model: str | None = None
    device_ids: tuple[int, ...] = ()
    engine: EngineState | None = None
    held: int = 0
    failure: str = ''
    servers: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """For people and launch files: a word, ': ' and more where there is more.

        `failed: <why>`, `stalled: no sign of life for 3.2 s in prefill of request x`, and
        `loading: 12 of 30 parts` where the engine reports it. With servers, `ready: images leave
        this robot for https://a:8000/v1`; where none answers, `ready: no server since
        2026-11-29T07:32:24Z, answering with demo on cpu; ...`, or `unreachable: no server since
        ...` where nobody else does.
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
        return self._ready(self.engine) if self.lifecycle == 'active' else 'inactive'

    def _ready(self, engine: EngineState) -> str:
        """Say who answers, and where images go."""
        leaving = f'images leave this robot for {", ".join(self.servers)}' if self.servers else ''
        standing = engine.standing
        if not standing.outage:
            return f'ready: {leaving}' if leaving else 'ready'
        outage = f'no server since {self.outage_since}'
        if standing.is_spare and engine.info is not None:
            info = engine.info
            spare = f'ready: {outage}, answering with {info.model} on {info.chip}'
            return f'{spare}; {leaving} again when one answers' if leaving else spare
        return f'unreachable: {outage}: {standing.outage}'

    @property
    def outage_since(self) -> str:
        """Since when no server answers, ISO 8601 in UTC; '' = one does."""
        since_ns = self.engine.standing.since_ns if self.engine is not None else 0
        if not since_ns:
            return ''
        since = datetime.fromtimestamp(since_ns // NS_PER_S, timezone.utc)
        return since.strftime('%Y-%m-%dT%H:%M:%SZ')

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
