"""The chip `remote` on scripted servers, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from edge_vlm_ros.serving import ModelSpec, ServingSettings
from edge_vlm_ros.serving.remote.pipeline import RemotePipeline
from support.scripted_server import Reply, ScriptedServer

WAIT_S: Final = 60.0
"""Longer than any answer takes that does not hang."""


def spec_of(*urls: str, model: str = '', **options: Any) -> ModelSpec:
    """Return the spec of servers."""
    return ModelSpec('remote', model, options={'servers': ','.join(urls), **options})


@contextmanager
def remote(
    *servers: ScriptedServer,
    model: str = '',
    settings: ServingSettings | None = None,
    **options: Any,
) -> Iterator[RemotePipeline]:
    """Open the backend on servers that run; closed at the end of the block."""
    spec = spec_of(*(server.url for server in servers), model=model, **options)
    with RemotePipeline.open(spec, settings=settings or ServingSettings()) as pipeline:
        yield pipeline


@contextmanager
def served(
    *replies: Reply, settings: ServingSettings | None = None, **options: Any
) -> Iterator[tuple[RemotePipeline, ScriptedServer]]:
    """Open the backend on one server that replies so."""
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer(replies))
        yield stack.enter_context(remote(server, settings=settings, **options)), server
