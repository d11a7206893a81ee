"""Looking for servers: are they there, do they let us in, have they the model, do they see?

The only proof that a server sees is what it says: two plain pictures are shown under one prompt. A
server whose cache knows prompts by their words alone says the same of both; one that drops
pictures counts no tokens for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.cli.file_frames import stored
from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.core import EdgeVlmError, ErrorCode, Question, SamplingOptions, read_options
from edge_vlm_ros.remote.addresses import ServerAddress, read_servers
from edge_vlm_ros.remote.client import ServerClient
from edge_vlm_ros.remote.errors import FaultError
from edge_vlm_ros.remote.key import read_key
from edge_vlm_ros.remote.options import RemoteOptions
from edge_vlm_ros.serving import ModelSpec, open_backend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_vlm_ros.core import Answer, StoredFrame
    from edge_vlm_ros.remote.servers import ServerFacts

LOOK_S = 5.0
TRIAL_S = 60.0
QUESTION = 'Which colour has this picture? Answer with one word.'
_SIDE_PX = 224
_RED, _BLUE = (220, 20, 20), (20, 20, 220)
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class ServerTrial:
    """What a server said of a red picture, of a blue one, and of none."""

    red: Answer
    blue: Answer
    none: Answer

    @property
    def counts_pictures(self) -> bool:
        """Whether a prompt has more tokens with a picture; also where nothing was counted."""
        with_one, without = self.red.timings.prompt_tokens, self.none.timings.prompt_tokens
        return not with_one or not without or with_one > without


def find_servers(model: str, options: Mapping[str, object]) -> Iterator[Finding]:
    """Ask each server; the findings of a server stand under its address.

    Args:
        model: As the servers call it; '' = the first one each of them lists.
        options: Of the chip `remote`.
    """
    try:
        chosen = read_options(RemoteOptions, options, 'chip remote')
        servers = read_servers(chosen.servers)
        read_key(chosen, servers)
        for server in servers:
            yield from _find(server, model, chosen, options)
    except EdgeVlmError as error:
        yield Finding('Servers', 'options', State.WARNING, error.message, 'see doc/remote.md')


def _find(
    server: ServerAddress, model: str, chosen: RemoteOptions, options: Mapping[str, object]
) -> Iterator[Finding]:
    topic = f'Server {server}'
    started_s = time.monotonic()
    try:
        facts = asyncio.run(_look(server, chosen))
    except FaultError as error:
        fault = error.fault
        if fault.code is not ErrorCode.SERVER_REFUSED:
            remedy = 'is it running, and is this its address (with the path, mostly /v1)?'
            yield Finding(topic, 'reachable', State.WARNING, fault.message, remedy)
            return
        yield Finding(topic, 'reachable', State.OK, 'answers')
        yield _refused(topic, fault.message, chosen)
        return
    took_ms = 1e3 * (time.monotonic() - started_s)
    yield Finding(topic, 'reachable', State.OK, f'lists its models within {took_ms:.0f} ms')
    yield Finding(topic, 'key', State.OK, 'accepted' if _has_key(chosen) else 'none is wanted')
    found = _find_model(topic, model, facts)
    yield found
    yield _find_context(topic, model, facts, chosen)
    if found.state is State.OK:
        yield from _find_sight(topic, server, model, options)


async def _look(server: ServerAddress, options: RemoteOptions) -> ServerFacts:
    client = ServerClient(
        key=read_key(options, (server,)),
        ca_file=options.ca_file,
        proxy_from_env=options.proxy_from_env,
        connect_s=options.connect_s,
    )
    await client.start()
    try:
        return await client.look(server, LOOK_S)
    finally:
        await client.close()


def _has_key(options: RemoteOptions) -> bool:
    return bool(options.api_key_env or options.api_key_file)


def _refused(topic: str, message: str, options: RemoteOptions) -> Finding:
    if 'status 401' not in message and 'status 403' not in message:
        remedy = 'is this the base address of its OpenAI-compatible routes (mostly .../v1)?'
        return Finding(topic, 'models', State.WARNING, message, remedy)
    remedy = f'the key in {options.api_key_env or options.api_key_file} is not one of its own'
    if not _has_key(options):
        remedy = 'it wants a key: --key-env NAME, the parameter remote.api_key_env'
    return Finding(topic, 'key', State.WARNING, message, remedy)


def _find_model(topic: str, model: str, facts: ServerFacts) -> Finding:
    listed = ', '.join(facts.models[:8]) or 'none'
    if not facts.models:
        remedy = 'load a model on the server'
        return Finding(topic, 'model', State.WARNING, 'lists no model', remedy)
    if model and model not in facts.models:
        found = f'does not list {model!r}; lists {listed}'
        return Finding(topic, 'model', State.WARNING, found, 'name one that it lists')
    found = f'{model} is listed' if model else f'{facts.models[0]}, the first of: {listed}'
    return Finding(topic, 'model', State.OK, found)


def _find_context(topic: str, model: str, facts: ServerFacts, options: RemoteOptions) -> Finding:
    name = model or (facts.models[0] if facts.models else '')
    tokens = facts.context_tokens.get(name, 0) or options.context_tokens
    if tokens:
        return Finding(topic, 'context', State.OK, f'{tokens} tokens')
    remedy = 'say it with the option context_tokens, so that what is too long is refused early'
    return Finding(topic, 'context', State.ABSENT, 'the server does not say', remedy)


def _find_sight(
    topic: str, server: ServerAddress, model: str, options: Mapping[str, object]
) -> Iterator[Finding]:
    """Show a server two pictures, and none."""
    alone = {**options, 'servers': server.url}
    try:
        trial = _try(ModelSpec('remote', model, options=alone))
    except EdgeVlmError as error:
        yield Finding(topic, 'images', State.WARNING, error.message, 'see doc/remote.md')
        return
    for answer in (trial.red, trial.blue):
        if not answer.success:
            found = f'{answer.error_code.name}: {answer.message}'
            remedy = 'a model that takes images is wanted (llama.cpp: with its --mmproj)'
            yield Finding(topic, 'images', State.WARNING, found, remedy)
            return
    if not trial.counts_pictures:
        count = trial.red.timings.prompt_tokens
        found = f'counts {count} tokens with a picture and as many without: it drops pictures'
        remedy = 'a model that takes images is wanted (llama.cpp: with its --mmproj)'
        yield Finding(topic, 'images', State.WARNING, found, remedy)
        return
    took_s = trial.red.timings.time_to_first_token_s
    yield Finding(topic, 'images', State.OK, f'taken; first word after {took_s:.2f} s')
    yield _told_apart(topic, trial)


def _told_apart(topic: str, trial: ServerTrial) -> Finding:
    red, blue = _shown(trial.red.text), _shown(trial.blue.text)
    said = f'of a red picture {red!r}, of a blue one {blue!r}, under one prompt'
    if red == blue:
        remedy = (
            'it may mix pictures up: turn its prompt cache off and try again; a model that is '
            'too small to see colours says so, too'
        )
        return Finding(topic, 'two pictures', State.WARNING, f'said {said}', remedy)
    return Finding(topic, 'two pictures', State.OK, f'said {said}')


def _shown(text: str) -> str:
    return ' '.join(text.split())[:_SHOWN_CHARS]


def _try(spec: ModelSpec) -> ServerTrial:
    with closing(open_backend(spec)) as backend:
        answers = []
        for colour in (_RED, _BLUE, None):
            frames: tuple[StoredFrame, ...] = ()
            if colour is not None:
                pixels = np.empty((_SIDE_PX, _SIDE_PX, 3), np.uint8)
                pixels[:] = colour
                frames = (stored('doctor', pixels, 0.0),)
            question = Question(
                QUESTION,
                frames=frames,
                sampling=SamplingOptions(max_tokens=16),
                deadline_ns=time.monotonic_ns() + round(TRIAL_S * 1e9),
            )
            answers.append(backend.ask(question).answer())
        return ServerTrial(*answers)
