"""Opens what the chip `remote` is: servers, or servers and a chip of this machine.

Imports nothing heavy: the ROS process checks a set-up here, before a model process is started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from edge_vlm_ros.core import Options, read_options, unsupported
from edge_vlm_ros.remote.addresses import read_servers
from edge_vlm_ros.remote.key import read_key
from edge_vlm_ros.remote.options import RemoteOptions
from edge_vlm_ros.serving.backend import check_spec, open_backend
from edge_vlm_ros.serving.handover import FallbackSettings, Order
from edge_vlm_ros.serving.model_info import ModelSpec
from edge_vlm_ros.serving.step import Step

if TYPE_CHECKING:
    from edge_vlm_ros.core import Clock
    from edge_vlm_ros.serving.backend import Backend, BackendType
    from edge_vlm_ros.serving.settings import ServingSettings
    from edge_vlm_ros.serving.step import OnStep

CHIP: Final = 'remote'

_MARGIN_S: Final = 0.25
"""A server's own silence ends sooner than the patience of who would answer in its place: then that
server is known to be down."""


@dataclass(frozen=True, slots=True)
class FallbackOptions(Options):
    """What may be chosen of the chip beside the servers.

    Attributes:
        fallback_chip: It answers where no server does; '' = nobody does.
        fallback_model: On it; '' = its default.
        order: Who is asked first.
        sure_from: Chip first: a choice less probable than this is asked of a server, too; 0 = none
            is.
    """

    fallback_chip: str = ''
    fallback_model: str = ''
    order: Literal['remote_then_local', 'local_then_remote'] = 'remote_then_local'
    sure_from: float = 0.0

    def __post_init__(self) -> None:
        # As in `RemoteOptions`: with slots `super()` would mean the class before.
        Options.__post_init__(self)
        if not 0 <= self.sure_from <= 1:
            raise unsupported(f'sure_from is a probability from 0 to 1, not {self.sure_from}')
        if self.fallback_chip == CHIP:
            raise unsupported('fallback_chip is of this machine; servers are listed in servers')
        if not self.fallback_chip and (self.fallback_model or self.order != 'remote_then_local'):
            raise unsupported('fallback_model and order mean nothing without a fallback_chip')


@dataclass(frozen=True, slots=True)
class RemoteParts:
    """What a spec of the chip `remote` asks for.

    Attributes:
        remote: The servers.
        local: The chip beside them; None = there is none.
        fallback: When it is asked.
    """

    remote: ModelSpec
    local: ModelSpec | None
    fallback: FallbackSettings


def split_spec(spec: ModelSpec) -> RemoteParts:
    """Tell what is for the servers and what for the chip beside them.

    Options that neither the servers nor the fallback have are for the chip, if there is one.

    Raises:
        BadRequestError: An option is unknown or cannot be.
    """
    of_fallback = FallbackOptions.names()
    of_remote = {each.name for each in fields(RemoteOptions)}
    chosen = {name: value for name, value in spec.options.items() if name in of_fallback}
    fallback = read_options(FallbackOptions, chosen, f'chip {CHIP}')
    others = {name: value for name, value in spec.options.items() if name not in of_fallback}
    if not fallback.fallback_chip:
        options = read_options(RemoteOptions, others, f'chip {CHIP}')
        return RemoteParts(replace(spec, options=others), None, _settings(fallback, options))
    remote = {name: value for name, value in others.items() if name in of_remote}
    local = {name: value for name, value in others.items() if name not in of_remote}
    options = read_options(RemoteOptions, remote, f'chip {CHIP}')
    return RemoteParts(
        replace(spec, options=remote),
        replace(spec, chip=fallback.fallback_chip, model=fallback.fallback_model, options=local),
        _settings(fallback, options),
    )


def _settings(fallback: FallbackOptions, options: RemoteOptions) -> FallbackSettings:
    first_word_s = options.first_token_s + _MARGIN_S
    return FallbackSettings(Order(fallback.order), first_word_s, fallback.sure_from)


def check_remote(spec: ModelSpec) -> str:
    """Check all of a spec that can be checked at once; return what would be opened, for people.

    Raises:
        BadRequestError: An option cannot be, no server is named, or the key is not there.
        ModelFileError: Files of the model beside the servers are missing.
    """
    parts = split_spec(spec)
    options = read_options(RemoteOptions, parts.remote.options, f'chip {CHIP}')
    servers = read_servers(options.servers)
    read_key(options, servers)
    told = f'{spec.model or "the first model listed"} of {", ".join(map(str, servers))}'
    if parts.local is None:
        return told
    return f'{told}, and {check_spec(parts.local)} beside it'


class Remote:
    """The `BackendType` of the chip `remote`."""

    @classmethod
    def open(
        cls,
        spec: ModelSpec,
        *,
        settings: ServingSettings,
        clock: Clock | None = None,
        on_work: OnStep | None = None,
        on_loaded: Callable[[int, int], None] | None = None,
    ) -> Backend:
        """Open servers, and load the chip's model where there is one; see `open_backend`.

        The chip's is loaded now, not when it is wanted: that would take too long.
        """
        from edge_vlm_ros.serving.fallback import FallbackPipeline
        from edge_vlm_ros.serving.remote.telling import TellingRemote

        parts = split_spec(spec)
        common: dict[str, Any] = {'settings': settings, 'clock': clock}
        if parts.local is None:
            return TellingRemote.open(parts.remote, on_work=on_work, **common)
        steps = JoinedSteps(on_work)
        remote = TellingRemote.open(parts.remote, on_work=steps.remote, **common)
        try:
            local = open_backend(parts.local, on_work=steps.local, on_loaded=on_loaded, **common)
        except BaseException:
            with closing(remote):
                raise
        return FallbackPipeline(remote, local, parts.fallback, settings=settings, clock=clock)


class JoinedSteps:
    """The signs of life of two backends as those of one: it rests when both do.

    While servers answer, a chip that hangs is not noticed by the silence; its questions go to
    servers then, or end in time.

    Args:
        on_work: Given them, on either's thread, one at a time.
    """

    def __init__(self, on_work: OnStep | None) -> None:
        self._on_work = on_work
        self._steps: dict[str, Step] = {}
        self._lock = threading.Lock()

    def remote(self, step: Step) -> None:
        """Take a step of the servers'."""
        self._take('remote', 'local', step)

    def local(self, step: Step) -> None:
        """Take a step of the chip's."""
        self._take('local', 'remote', step)

    def _take(self, name: str, other: str, step: Step) -> None:
        with self._lock:
            self._steps[name] = step
            if step.is_rest:
                step = self._steps.get(other, step)
            if self._on_work is not None:
                self._on_work(step)


if TYPE_CHECKING:
    _is_a_backend_type: BackendType = Remote
