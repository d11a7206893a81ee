"""One soak: the node in a process of its own, and everything that happens to it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from support.domains import own_domain
from support.environment import on_domain
from support.processes import Spawned, spawn

from edge_vlm_ros.core import ErrorCode
from tools.soak import usage
from tools.soak.ledger import Asked, Ledger
from tools.soak.requests import CAMERAS, Draw, Wish
from tools.soak.robot import COMPRESSED, Robot, grey
from tools.soak.script import SCRIPT, brightness, means_in

STALL_S: Final = 2.0
_GOOD: Final = frozenset({ErrorCode.NONE})
_ANY_FRAME: Final = _GOOD | {ErrorCode.BAD_IMAGE}
QUEUE: Final = 8
_PATIENCE_S: Final = 150.0
"""Longer than any request takes: a process is started again after 30 s at most."""

_SAMPLE_S: Final = 0.2
_MOST_DEATHS: Final = 12
"""After each of them the node waits longer before it starts another process, up to 30 s."""

_POISONS: Final = ('crash in decode', 'kill', 'hang', 'crash in prefill', 'stop')


@dataclass(slots=True)
class Held:
    """What the node held when nothing was to be done.

    Attributes:
        descriptors, threads, children: Of the node's process.
        model_descriptors, model_threads: Of the model process.
    """

    descriptors: int
    threads: int
    children: int
    model_descriptors: int
    model_threads: int


@dataclass(slots=True)
class Outcome:
    """What a soak has seen.

    Attributes:
        ledger: The requests.
        wrongs: What was wrong, in words; none = all is well.
        seconds: It took.
        deaths: How many model processes were ended, by a question or from outside.
        before, after: What was held when idle.
        node, model: Memory over time.
        left: Processes and shared memory that outlived the node.
    """

    ledger: Ledger
    wrongs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    deaths: int = 0
    before: Held | None = None
    after: Held | None = None
    node: list[usage.Sample] = field(default_factory=list)
    model: list[usage.Sample] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@final
class Soak:
    """Asks, breaks and watches.

    Args:
        requests: How many.
        seed: Decides everything that is drawn.
        limit_s: After so long no more are asked.
        folder: For script and log.
    """

    def __init__(self, requests: int, seed: int, limit_s: float, folder: Path) -> None:
        self._requests, self._limit_s, self._folder = requests, limit_s, folder
        self._seed, self._random = seed, random.Random(seed)
        self._draw = Draw(self._random)
        self._open: dict[str, Asked] = {}
        self._cancels: list[tuple[float, Callable[[], None]]] = []
        self._sampled_s = 0.0
        self.outcome = Outcome(Ledger())

    def run(self) -> Outcome:
        """Do it all."""
        started_s = time.monotonic()
        with own_domain() as domain, contextlib.ExitStack() as stack:
            os.environ.update({k: v for k, v in on_domain(domain).items() if v is not None})
            # Frames have a source of their own: how many there are is a matter of time.
            self._robot = Robot(random.Random(self._seed))
            stack.callback(self._robot.close)
            self._node = self._start_node()
            stack.callback(self._node.stop)
            self._until(lambda: self._robot.state == 'ready', 'the node ready')
            self._calibrate()
            self.outcome.before = self._idle()
            self._ask_all(started_s + self._limit_s)
            self._settle()
            self.outcome.after = self._idle()
            segments = self._end()
        self.outcome.left += usage.still_there(segments)  # Some were the client's.
        self.outcome.wrongs += self.outcome.ledger.wrongs(self._robot.heard)
        self.outcome.seconds = time.monotonic() - started_s
        return self.outcome

    def _start_node(self) -> Spawned:
        script = self._folder / 'script.yaml'
        script.write_text(SCRIPT, encoding='utf-8')
        parameters: dict[str, object] = {
            'chip': 'scripted',
            'model': script,
            'camera_names': f'[{", ".join(CAMERAS)}]',
            'engine_stall_s': STALL_S,
            'queue_size': QUEUE,
            'max_tokens': 1000,
            **{f'cameras.{name}.transport': 'compressed' for name in COMPRESSED},
        }
        words = [sys.executable, '-m', 'edge_vlm_ros.nodes.vlm_main', '--ros-args']
        for name, value in parameters.items():
            words += ['-p', f'{name}:={value}']
        return spawn(words, self._folder / 'node.log')

    def _calibrate(self) -> None:
        """Learn which means images of two brightnesses have; see that all cameras are there."""
        stamps = (3, 8)
        wish = Wish('images', {'question': '?', 'images': [grey('', s) for s in stamps]}, _GOOD)
        asked = self._ask(wish)
        self._until(lambda: asked.replies > 0, 'the first answer')
        if asked.answer.error_code:
            raise RuntimeError(f'the first question failed: {asked.answer.message}')
        (one, other), (low, high) = (
            means_in(asked.answer.text),
            [brightness('', s) for s in stamps],
        )
        step = (other - one) / (high - low)
        ledger = self.outcome.ledger
        ledger.dark, ledger.bright = one - low * step, one + (255 - low) * step
        for camera in CAMERAS:
            asked = self._ask(Wish('still', {'question': '?', 'cameras': [camera]}, _ANY_FRAME))
            self._until(lambda: not self._open, 'an answer about each camera')

    # --- asking ----------------------------------------------------------------------------------

    def _ask_all(self, stop_s: float) -> None:
        deaths = min(max(2, self._requests // 200), _MOST_DEATHS)
        # The last part is undisturbed, so that one model process lives long enough to be measured.
        part = 0.6 * self._requests
        due = {round((n + 1) * part / (deaths + 1)): n for n in range(deaths)}
        pauses = {n for n in range(self._requests) if n % 40 == 20}
        most = 3
        for number in range(self._requests):
            if time.monotonic() > stop_s:
                self.outcome.wrongs.append(f'only {number} requests in {self._limit_s:g} s')
                return
            if number in due:
                self._break(_POISONS[due[number] % len(_POISONS)])
            if number in pauses:
                self._robot.pause(self._random.choice(CAMERAS), self._random.uniform(0.5, 4.0))
            if number % 25 == 0:
                most = self._random.choice([1, 2, 4, QUEUE, 2 * QUEUE])
            self._until(lambda most=most: len(self._open) < most, 'room')  # type: ignore[misc]
            self._ask(self._draw.next())
            if self._random.random() < 0.02:
                self._reset()
            self._turn()

    def _ask(self, wish: Wish) -> Asked:
        number = len(self.outcome.ledger.asked)
        asked = Asked(wish, f'r{number}', self.outcome.deaths)
        wish.fields['request_id'] = asked.request_id
        self.outcome.ledger.asked.append(asked)
        self._open[asked.request_id] = asked
        if wish.over == 'action':
            self._send_goal(asked)
            return asked
        future = self._robot.clients[wish.over].call_async(wish.message())
        future.add_done_callback(lambda done: self._take(asked, done.result()))
        if wish.cancel_after_s:
            self._later(wish.cancel_after_s, lambda: self._cancel(asked))
        return asked

    def _send_goal(self, asked: Asked) -> None:
        def accepted(done: Any) -> None:
            goal = done.result()
            goal.get_result_async().add_done_callback(
                lambda result: self._take(asked, result.result().result)
            )
            if asked.wish.cancel_after_s:
                self._later(asked.wish.cancel_after_s, goal.cancel_goal_async)

        self._robot.action.send_goal_async(asked.wish.message()).add_done_callback(accepted)

    def _take(self, asked: Asked, response: Any) -> None:
        asked.replies += 1
        asked.answer = response.answer
        asked.died = self.outcome.deaths > asked.deaths_before
        self._open.pop(asked.request_id, None)

    def _cancel(self, asked: Asked) -> None:
        """Cancel, until it is over: the request itself may still be on its way."""
        if not asked.replies:
            client = self._robot.clients['cancel']
            client.call_async(client.srv_type.Request(request_id=asked.request_id))
            self._later(0.1, lambda: self._cancel(asked))

    def _reset(self) -> None:
        client = self._robot.clients['reset']
        client.call_async(client.srv_type.Request(session_id=f's{self._random.randrange(6)}'))

    # --- breaking --------------------------------------------------------------------------------

    def _break(self, how: str) -> None:
        """End the model process, one way or another, while it is at work."""
        self._until(lambda: self._robot.state == 'ready', 'the node ready')
        # Those that are open now are open when it dies.
        if how in {'kill', 'stop'}:
            self._ask(self._draw.of_kind('cancel'))
            self._turn()
            self._signal(signal.SIGKILL if how == 'kill' else signal.SIGSTOP)
        else:
            self._ask(self._draw.poison(how))
        # A question that kills before its first word is asked once more.
        self.outcome.deaths += 2 if how == 'crash in prefill' else 1
        for asked in self._open.values():
            asked.died = True

    def _signal(self, number: signal.Signals) -> None:
        for pid in usage.children(self._node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # --- waiting ---------------------------------------------------------------------------------

    def _later(self, seconds: float, action: Callable[[], Any]) -> None:
        self._cancels.append((time.monotonic() + seconds, action))

    def _turn(self) -> None:
        """Let a little happen."""
        self._robot.spin()
        now_s = time.monotonic()
        for due in [due for due in self._cancels if due[0] <= now_s]:
            self._cancels.remove(due)
            due[1]()
        if now_s - self._sampled_s > _SAMPLE_S:
            self._sampled_s = now_s
            self._sample()

    def _until(self, condition: Callable[[], object], what: str) -> None:
        stop_s = time.monotonic() + _PATIENCE_S
        while not condition():
            self._turn()
            if self._node.process.poll() is not None:
                raise RuntimeError(f'the node has ended:\n{self._node.output()[-3000:]}')
            if time.monotonic() > stop_s:
                raise RuntimeError(f'{what} did not come within {_PATIENCE_S:g} s')

    def _settle(self) -> None:
        """Wait for all replies, and for what must not follow."""
        with contextlib.suppress(RuntimeError):  # What is lost is told, one by one.
            self._until(lambda: not self._open, 'every reply')
        heard = self._robot.heard
        asked = self.outcome.ledger.asked
        with contextlib.suppress(RuntimeError):
            self._until(
                lambda: all(a.request_id in heard and heard[a.request_id].finals for a in asked),
                'every final chunk',
            )

    # --- watching --------------------------------------------------------------------------------

    def _sample(self) -> None:
        over = len(self.outcome.ledger.asked) - len(self._open)
        seen = usage.sample(self._node.pid, over)
        if seen is not None:
            self.outcome.node.append(seen)
        for pid in usage.children(self._node.pid):
            seen = usage.sample(pid, over)
            if seen is not None:
                self.outcome.model.append(seen)

    def _idle(self) -> Held:
        """Let everything come to rest, and count what is held."""
        self._until(lambda: self._robot.state == 'ready', 'the node ready')
        stop_s = time.monotonic() + 1.0
        self._until(lambda: time.monotonic() > stop_s, 'rest')
        pid = self._node.pid
        models = usage.children(pid)
        return Held(
            descriptors=usage.descriptors(pid),
            threads=usage.threads(pid),
            children=len(models),
            model_descriptors=sum(map(usage.descriptors, models)),
            model_threads=sum(map(usage.threads, models)),
        )

    def _end(self) -> set[str]:
        """End the node as Ctrl-C does; see what outlives it; return its shared memory."""
        pid = self._node.pid
        models = usage.children(pid)
        segments = usage.shared_memory(pid)
        self._node.process.send_signal(signal.SIGINT)
        status = self._node.wait(60.0)
        outcome = self.outcome
        if status:
            outcome.wrongs.append(f'the node ended with status {status}')
        if 'Traceback' in self._node.output():
            outcome.wrongs.append('the log of the node has a traceback')
        outcome.left += [f'process {model}' for model in models if usage.is_alive(model)]
        return segments
