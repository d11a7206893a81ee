"""An asyncio loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from edge_vlm_ros.serving.endings import known_error


class LoopThread:
    """Runs one coroutine until it is told to stop; what others call runs beside it.

    Args:
        name: The thread's.
        serve: The coroutine; says `is_ready` when it can be used, and ends after `stopped`. One
            that fails after it was ready takes its thread down, which ends a model process.
    """

    def __init__(self, name: str, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._serve = serve
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop itself."""
        return self._loop

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop; on its thread."""
        return self._stop.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start it; return when it is ready.

        Raises:
            EdgeVlmError: It failed before.
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise known_error(self._error)

    def is_ready(self) -> None:
        """Say that it can be used."""
        self._ready.set()

    async def stopped(self) -> None:
        """Wait until it is told to stop."""
        await self._stop.wait()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have something called on its thread; nothing, once it is over. From any thread."""
        with self._closing:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self, timeout_s: float) -> None:
        """Tell it to stop, and wait for that; safe to call twice, and on its own thread."""
        self.call(self._stop.set)
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._ready.is_set():
                raise
            self._error = error
        finally:
            self._ready.set()
            with self._closing:
                self._loop.close()
