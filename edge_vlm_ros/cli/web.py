"""`edge-vlm web`: the page over files, a webcam and a model of this machine."""

from __future__ import annotations

import asyncio
import signal
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from edge_vlm_ros.cli.ending import SIGNALS, EndedBySignal
from edge_vlm_ros.cli.model_spec import spec_of
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.cli.web_robot import FileRobot
from edge_vlm_ros.cli.web_sources import Source, open_sources
from edge_vlm_ros.core import CancelledError, chip_named, end_needs
from edge_vlm_ros.serving import Backend, ModelSpec, open_backend
from edge_vlm_ros.web import Hub
from edge_vlm_ros.web.door import open_door
from edge_vlm_ros.web.server import Address, WebServer


def run(args: Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        EdgeVlmError: A source, the model or the address is not usable.
        EndedBySignal: A signal came.
    """
    chip_named(args.chip)
    spec = spec_of(args)
    sources = open_sources(args)
    try:
        raise EndedBySignal(asyncio.run(_serve(args, spec, sources)))
    finally:
        for source in sources.values():
            source.release()


async def _serve(args: Namespace, spec: ModelSpec, sources: Mapping[str, Source]) -> int:
    """Serve; return the signal that ended it.

    Raises:
        EdgeVlmError: It cannot be served, or the model cannot be loaded.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    door = open_door(args.host, args.name, args.token_file)
    robot = FileRobot(sources, loop)
    server = WebServer(Hub(robot, read_only=args.read_only), door.guard)
    with _heard_signals(loop, ended):
        async with server.serve(Address(args.host, args.port)) as address:
            for line in door.announcement(address.url):
                stream().write(f'{line}\n')
            stream().flush()
            stop = threading.Event()
            loading = _load(spec, robot, loop, stop)
            either: set[asyncio.Future[Any]] = {loading, ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            if not loading.done() and not end_needs().grace_s:
                return await ended  # It ends with the process.
            await asyncio.wait({loading})  # Stopped between two files: a chip gets all of it back.
            if ended.done() and loading.exception() is not None:
                return await ended
            backend = loading.result()
            robot.set_backend(backend)
            try:
                return await ended
            finally:
                await loop.run_in_executor(None, backend.close)


@contextmanager
def _heard_signals(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[int]) -> Iterator[None]:
    """Have signals end the serving, and not whatever runs just then."""

    def end(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    # An ignored one (nohup) stays so.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _load(
    spec: ModelSpec, robot: FileRobot, loop: asyncio.AbstractEventLoop, stop: threading.Event
) -> asyncio.Future[Backend]:
    """Load the model on another thread, and have the page say how far it is.

    Args:
        spec: The model.
        robot: Is told.
        loop: The page's.
        stop: Once set, the load ends before its next file.
    """
    loaded: asyncio.Future[Backend] = loop.create_future()

    def on_loaded(parts: int, all_parts: int) -> None:
        if stop.is_set():
            raise CancelledError('the load was stopped')
        hand_over(robot.set_state, f'loading: {parts} of {all_parts} parts')

    def hand_over(call: Callable[..., object], value: object) -> None:
        with suppress(RuntimeError):  # The loop is closed: a signal came meanwhile.
            loop.call_soon_threadsafe(call, value)

    def load() -> None:
        try:
            hand_over(loaded.set_result, open_backend(spec, on_loaded=on_loaded))
        except Exception as error:  # noqa: BLE001 (raised again where it is waited for)
            hand_over(loaded.set_exception, error)

    threading.Thread(target=load, name='load', daemon=True).start()
    return loaded
