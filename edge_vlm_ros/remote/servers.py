"""Which server is next, and until when one is left alone: a state machine, no socket, no clock.

Rules, each held by a test:

* Servers are tried in the order in which they are listed; a conversation's own first, for it has
  the prompt in its cache.
* One that failed is down. It is asked in the background after 1 s, and after every further failure
  after twice as long, up to 30 s (or when it asked to be), with a little chance in it, so that a
  fleet does not ask at once. The count begins again with an answer, not with a sign of life.
* One that is down is tried only when all are, the one that is due first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.remote.addresses import ServerAddress
from edge_vlm_ros.remote.errors import Fault, WhoCanAct

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
CHANCE = 0.2
"""A pause is longer by up to this share."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself.

    Attributes:
        models: Those it lists.
        context_tokens: What a model holds, by its name, where the server says so.
    """

    models: tuple[str, ...] = ()
    context_tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is known of a server.

    Attributes:
        address: Where it is.
        is_up: Questions go there.
        since_ns: Steady time since when it is up or down; 0 = it was not tried yet.
        fault: Why it is down; None = it is up.
        facts: None = it was never reached.
    """

    address: ServerAddress
    is_up: bool
    since_ns: int
    fault: Fault | None
    facts: ServerFacts | None


@dataclass(slots=True)
class _Server:
    address: ServerAddress
    is_up: bool = True
    since_ns: int = 0
    failures: int = 0
    due_ns: int = 0
    is_asked: bool = False
    fault: Fault | None = None
    facts: ServerFacts | None = None


class Servers:
    """The servers of one deployment. Not safe for several threads at once.

    Args:
        addresses: The preferred one first.
        chance: Gives numbers from 0 to 1.
    """

    def __init__(
        self, addresses: Sequence[ServerAddress], chance: random.Random | None = None
    ) -> None:
        self._servers = [_Server(address) for address in addresses]
        self._by_address = {server.address: server for server in self._servers}
        self._chance = chance or random.Random()  # noqa: S311 (no secret hangs on it)

    @property
    def states(self) -> tuple[ServerState, ...]:
        """What is known of each, as listed."""
        return tuple(
            ServerState(s.address, s.is_up, s.since_ns, s.fault, s.facts) for s in self._servers
        )

    @property
    def is_any_up(self) -> bool:
        """Whether one may answer."""
        return any(server.is_up for server in self._servers)

    @property
    def down_since_ns(self) -> int:
        """Steady time since when all are down; 0 = one is up."""
        return 0 if self.is_any_up else max(server.since_ns for server in self._servers)

    def order(self, preferred: ServerAddress | None = None) -> tuple[ServerAddress, ...]:
        """Return the servers to try for a question, in this order.

        Args:
            preferred: The one that has the conversation in its cache.
        """
        up = [server for server in self._servers if server.is_up]
        if not up:
            return tuple(s.address for s in sorted(self._servers, key=lambda s: s.due_ns))
        return tuple(s.address for s in sorted(up, key=lambda s: s.address != preferred))

    def failed(self, address: ServerAddress, fault: Fault, now_ns: int) -> bool:
        """Take note that a server did not answer; return whether it was up until now."""
        server = self._by_address[address]
        was_up = server.is_up
        if was_up:
            server.since_ns = now_ns
        server.is_up, server.fault, server.is_asked = False, fault, False
        pause_s = min(FIRST_PAUSE_S * 2**server.failures, LONGEST_PAUSE_S)
        if fault.who is WhoCanAct.DEPLOYER:
            pause_s = LONGEST_PAUSE_S
        server.failures = min(server.failures + 1, 16)
        pause_s = max(pause_s * (1 + CHANCE * self._chance.random()), fault.retry_after_s)
        server.due_ns = now_ns + round(pause_s * NS_PER_S)
        return was_up

    def answered(self, address: ServerAddress, now_ns: int) -> bool:
        """Take note that a server has answered; return whether it was down until now."""
        self._by_address[address].failures = 0
        return self._raise(address, now_ns)

    def found(self, address: ServerAddress, facts: ServerFacts, now_ns: int) -> bool:
        """Take note of what a server says of itself; return whether it was down until now."""
        self._by_address[address].facts = facts
        return self._raise(address, now_ns)

    def due(self, now_ns: int) -> tuple[ServerAddress, ...]:
        """Return those to be asked whether they are back; each until it `failed` or is `found`."""
        chosen = [
            server
            for server in self._servers
            if not server.is_up and not server.is_asked and server.due_ns <= now_ns
        ]
        for server in chosen:
            server.is_asked = True
        return tuple(server.address for server in chosen)

    def facts_of(self, address: ServerAddress) -> ServerFacts | None:
        """Return what a server said of itself; None = it was never reached."""
        return self._by_address[address].facts

    def _raise(self, address: ServerAddress, now_ns: int) -> bool:
        server = self._by_address[address]
        was_down = not server.is_up
        if was_down or not server.since_ns:
            server.since_ns = now_ns
        server.is_up, server.fault, server.is_asked = True, None, False
        return was_down
