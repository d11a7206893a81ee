"""The servers of a pipeline: which is next, which are down, and since when."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.remote.errors import Fault, FaultError, WhoCanAct
from edge_vlm_ros.remote.servers import Servers, ServerState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_vlm_ros.core import Clock
    from edge_vlm_ros.remote.addresses import ServerAddress
    from edge_vlm_ros.remote.client import ServerClient

_log = logging.getLogger(__name__)

LOOK_S = 3.0
"""How long a server may take to say which models it has."""

_TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """How the servers are.

    Attributes:
        servers: Each, as listed.
        down_since_ns: Steady time since when all are down; 0 = one is up.
    """

    servers: tuple[ServerState, ...]
    down_since_ns: int

    @property
    def is_down(self) -> bool:
        """Whether no server is up."""
        return self.down_since_ns > 0

    @property
    def reason(self) -> str:
        """Why those that are down are, for people; '' = none is."""
        down = [s for s in self.servers if s.fault is not None]
        return '; '.join(f'{s.address}: {s.fault.message}' for s in down if s.fault is not None)


class Fleet:
    """Keeps the servers in order. `health` and `context_tokens` may be asked from any thread.

    Args:
        addresses: The preferred one first.
        client: Asks them.
        clock: Steady time.
        model: As they call it; '' = the first one that each of them lists.
    """

    def __init__(
        self,
        addresses: Sequence[ServerAddress],
        client: ServerClient,
        clock: Clock,
        model: str,
    ) -> None:
        self._servers = Servers(addresses)
        self._client = client
        self._clock = clock
        self._model = model
        self._lock = threading.Lock()
        self._listener: Callable[[FleetHealth], None] | None = None
        self._is_down = False

    @property
    def health(self) -> FleetHealth:
        """How the servers are now."""
        with self._lock:
            return self._health()

    @property
    def context_tokens(self) -> int:
        """What the model holds, the least that a server says; 0 = none says."""
        with self._lock:
            states = self._servers.states
        known = [
            facts.context_tokens[name]
            for facts in (state.facts for state in states)
            if facts is not None
            for name in (self._model or next(iter(facts.models), ''),)
            if name in facts.context_tokens
        ]
        return min(known, default=0)

    @property
    def first_model(self) -> str:
        """The model that stands for all: the one chosen, or the first that a server lists."""
        with self._lock:
            states = self._servers.states
        listed = [state.facts.models for state in states if state.facts is not None]
        return self._model or next((models[0] for models in listed if models), '')

    def listen(self, listener: Callable[[FleetHealth], None] | None) -> None:
        """Have `listener` called when the last server goes down and when one is up again.

        On the loop's thread; must be quick.
        """
        self._listener = listener

    def order(self, preferred: ServerAddress | None) -> tuple[ServerAddress, ...]:
        """Return the servers to try for a question; see `Servers.order`."""
        with self._lock:
            return self._servers.order(preferred)

    async def model_of(self, server: ServerAddress) -> str:
        """Return what a server's first model is called.

        Raises:
            FaultError: It does not say, or has none.
        """
        with self._lock:
            facts = self._servers.facts_of(server)
        if facts is None:
            facts = await self._client.look(server, LOOK_S)
            with self._lock:
                self._servers.found(server, facts, self._clock.now_ns())
        if not facts.models:
            raise FaultError(
                Fault(WhoCanAct.DEPLOYER, ErrorCode.SERVER_REFUSED, 'lists no model at all')
            )
        return facts.models[0]

    def failed(self, server: ServerAddress, fault: Fault) -> None:
        """Take note that a server did not answer."""
        with self._lock:
            is_new = self._servers.failed(server, fault, self._clock.now_ns())
        if is_new:
            _log.warning('server %s is down: %s', server, fault.message)
        self._tell()

    def answered(self, server: ServerAddress) -> None:
        """Take note that a server has answered."""
        with self._lock:
            is_new = self._servers.answered(server, self._clock.now_ns())
        self._note_up(server, is_new=is_new)

    async def look_at_all(self) -> None:
        """Ask each server which models it has; none is waited for longer than `LOOK_S`."""
        with self._lock:
            addresses = [state.address for state in self._servers.states]
        await asyncio.gather(*map(self._look, addresses))

    async def keep_looking(self) -> None:
        """Ask those that are down whether they are back, until cancelled."""
        tasks: set[asyncio.Task[None]] = set()
        while True:
            with self._lock:
                due = self._servers.due(self._clock.now_ns())
            for server in due:
                task = asyncio.create_task(self._look(server))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(_TICK_S)

    async def _look(self, server: ServerAddress) -> None:
        try:
            facts = await self._client.look(server, LOOK_S)
        except FaultError as error:
            self.failed(server, error.fault)
            return
        with self._lock:
            is_new = self._servers.found(server, facts, self._clock.now_ns())
        if self._model and facts.models and self._model not in facts.models:
            listed = ', '.join(facts.models[:8])
            _log.warning('server %s lists no model %r: %s', server, self._model, listed)
        self._note_up(server, is_new=is_new)

    def _note_up(self, server: ServerAddress, *, is_new: bool) -> None:
        if is_new:
            _log.warning('server %s is back', server)
        self._tell()

    def _tell(self) -> None:
        health = self.health
        if health.is_down == self._is_down:
            return
        self._is_down = health.is_down
        if self._listener is not None:
            self._listener(health)

    def _health(self) -> FleetHealth:
        return FleetHealth(self._servers.states, self._servers.down_since_ns)
