"""What an agent may do with a robot's cameras, in plain Python.

The thread of one asyncio loop, as `web.Robot` wants it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from edge_vlm_ros.core import (
    NS_PER_S,
    YES_NO,
    BadRequestError,
    EdgeVlmError,
    ErrorCode,
    NoFreshFrameError,
    NotReadyError,
)
from edge_vlm_ros.watch.votes import Votes
from edge_vlm_ros.web import Facts, Request, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edge_vlm_ros.web import News, Picture, Robot

FACTS_S: Final = 10.0
"""For so long a robot is waited for before it is said not to be there."""

PICTURE_S: Final = 5.0
LONGEST_WATCH_S: Final = 3600.0
SHORTEST_PERIOD_S: Final = 0.2
_NOW: Final = (2, 3)
"""An event is on when two of the last three looks say so, as a watch of the node has it."""

_Result = TypeVar('_Result')


@dataclass(frozen=True, slots=True)
class Question:
    """A question of an agent's; fields as those of `srv/Ask`."""

    text: str
    cameras: tuple[str, ...] = ()
    last_seconds: float = 0.0
    choices: tuple[str, ...] = ()
    session_id: str = ''
    timeout_s: float = 0.0


class Toolbox:
    """The tools.

    Args:
        robot: Is looked at and asked.
        keeps_open: Its cameras are to be open all the time: they are files that are played.
    """

    def __init__(self, robot: Robot, *, keeps_open: bool = False) -> None:
        self._robot = robot
        self._keeps_open = keeps_open
        self._facts: Facts | None = None
        self._state = State('', is_there=False)
        self._heard = asyncio.Event()
        self._open: Counter[str] = Counter()
        self._pictures: dict[str, Picture] = {}
        self._came = asyncio.Event()

    def open(self) -> None:
        """Begin to hear what the robot says of itself."""
        self._robot.listen(self._hear)

    def close(self) -> None:
        """Hear and look no more."""
        for name in list(self._open):
            self._robot.close_camera(name)
        self._open.clear()
        self._robot.mute()

    async def facts(self) -> dict[str, Any]:
        """Say what the robot has: cameras, named questions, its state.

        Raises:
            NotReadyError: There is no robot.
        """
        facts = await self._known()
        return {
            'state': self._state.text,
            'cameras': [camera.name for camera in facts.cameras],
            'presets': {preset.name: preset.question for preset in facts.presets},
        }

    async def ask(self, question: Question) -> dict[str, Any]:
        """Ask; a task that is cancelled takes the question back.

        Raises:
            EdgeVlmError: There is no answer; says why.
        """
        facts = await self._known()
        self._check(question.cameras, facts)
        request = Request(
            request_id=f'agent-{uuid4().hex}',
            question=question.text,
            session_id=question.session_id,
            cameras=question.cameras,
            last_seconds=question.last_seconds,
            choices=question.choices,
            timeout_s=question.timeout_s,
        )
        answered: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

        def on_answer(fields: Mapping[str, Any]) -> None:
            if not answered.done():
                answered.set_result(fields)

        self._robot.ask(request, lambda _delta: None, on_answer)
        try:
            answer = await answered
        except asyncio.CancelledError:
            self._robot.cancel(request.request_id)
            raise
        if answer['error_code']:
            raise EdgeVlmError(answer['message'], ErrorCode(answer['error_code']))
        return _told(answer)

    async def describe(self, preset: str, cameras: tuple[str, ...]) -> dict[str, Any]:
        """Ask one of the robot's own questions; '' = its first.

        Raises:
            EdgeVlmError: There is no such question, or no answer.
        """
        facts = await self._known()
        named = {each.name: each.question for each in facts.presets}
        if not named or preset not in {'', *named}:
            raise BadRequestError(f'no preset {preset!r}; there are: {", ".join(named)}')
        text = named[preset] if preset else next(iter(named.values()))
        return await self.ask(Question(text, cameras))

    async def look(self, camera: str) -> Picture:
        """Return the newest picture of a camera; '' = the first one.

        Raises:
            EdgeVlmError: There is no such camera, or no picture comes.
        """
        facts = await self._known()
        self._check((camera,) if camera else (), facts)
        name = camera or facts.cameras[0].name
        self._open_camera(name)
        try:
            return await _within(
                self._picture(name), PICTURE_S, NoFreshFrameError(f'no picture of {name} comes')
            )
        finally:
            self._close_camera(name)

    async def watch(
        self,
        question: Question,
        when: tuple[str, ...],
        *,
        period_s: float,
        timeout_s: float,
        on_look: Callable[[int, str], Awaitable[None]],
    ) -> dict[str, Any]:
        """Ask again and again until two of the last three answers mean the event.

        Args:
            question: With choices; none = yes and no.
            when: Those that mean the event; empty = the first.
            period_s: From one look to the next.
            timeout_s: Give up after that.
            on_look: Called after each look with its number and what was seen.

        Raises:
            BadRequestError: A value makes no sense.
        """
        choices = question.choices or YES_NO
        meant = when or choices[:1]
        _check_watch(choices, meant, period_s, timeout_s)
        votes, looks, missed = Votes(_NOW, _NOW), 0, 0
        answer: dict[str, Any] = {}
        problem = ''
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            looks += 1
            try:
                asked = Question(question.text, question.cameras, question.last_seconds, choices)
                answer = await self.ask(asked)
                votes.add(means_event=answer['choice'] in meant)
                await on_look(looks, answer['choice'] or answer['text'])
            except EdgeVlmError as error:
                missed, problem = missed + 1, error.message
                await on_look(looks, f'no answer: {error.message}')
            if votes.say_begin:
                break
            await asyncio.sleep(max(0.0, began_s + period_s - time.monotonic()))
        return {
            'event': votes.say_begin,
            'looks': looks,
            'missed': missed,
            'last_problem': problem,
            **answer,
        }

    # --- what comes from the robot ---------------------------------------------------------------

    def _hear(self, news: News) -> None:
        if isinstance(news, Facts) and news.cameras:
            self._facts = news
            if self._keeps_open:
                for camera in news.cameras:
                    if not self._open[camera.name]:
                        self._open_camera(camera.name)
            self._heard.set()
        elif isinstance(news, State):
            self._state = news

    def _open_camera(self, name: str) -> None:
        self._open[name] += 1
        if self._open[name] == 1:
            self._pictures.pop(name, None)
            self._robot.open_camera(name, lambda picture: self._show(name, picture))

    def _close_camera(self, name: str) -> None:
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
            self._robot.close_camera(name)

    def _show(self, name: str, picture: Picture) -> None:
        self._pictures[name] = picture
        self._came.set()
        self._came = asyncio.Event()

    async def _picture(self, name: str) -> Picture:
        while name not in self._pictures:
            await self._came.wait()
        return self._pictures[name]

    async def _known(self) -> Facts:
        why = 'no vlm node is heard of' if not self._state.is_there else self._state.text
        await _within(self._heard.wait(), FACTS_S, NotReadyError(f'there are no cameras: {why}'))
        assert self._facts is not None
        return self._facts

    @staticmethod
    def _check(cameras: tuple[str, ...], facts: Facts) -> None:
        known = [camera.name for camera in facts.cameras]
        for name in cameras:
            if name not in known:
                raise BadRequestError(
                    f'no camera {name!r}; there are: {", ".join(known)}', ErrorCode.UNKNOWN_CAMERA
                )


async def _within(
    wanted: Awaitable[_Result], timeout_s: float, otherwise: EdgeVlmError
) -> _Result:
    try:
        return await asyncio.wait_for(wanted, timeout_s)
    except asyncio.TimeoutError:
        raise otherwise from None


def _check_watch(
    choices: tuple[str, ...], when: tuple[str, ...], period_s: float, timeout_s: float
) -> None:
    strangers = [word for word in when if word not in choices]
    if strangers:
        raise BadRequestError(f'when is of {", ".join(choices)}, not {strangers[0]!r}')
    if not SHORTEST_PERIOD_S <= period_s <= LONGEST_WATCH_S:
        raise BadRequestError(
            f'period_s is from {SHORTEST_PERIOD_S} to {LONGEST_WATCH_S:.0f}, not {period_s}'
        )
    if not 0 < timeout_s <= LONGEST_WATCH_S:
        raise BadRequestError(f'timeout_s is above 0, up to {LONGEST_WATCH_S:.0f}: {timeout_s}')


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return of an answer what an agent can use; stamps as seconds of the robot's clock."""
    return {
        'text': answer['text'],
        'choice': answer['choice'],
        'choice_probability': answer['choice_probability'],
        'message': answer['message'],
        'frames': [
            {
                'camera': frame['camera'],
                'stamp': _seconds(frame['header']['stamp']),
                'age_s': round(frame['age_s'], 3),
                'width': frame['width'],
                'height': frame['height'],
            }
            for frame in answer['frames']
        ],
        'detections': answer.get('detections', []),
        'session_id': answer['session_id'],
        'total_s': round(answer['stats']['total_s'], 3),
    }


def _seconds(stamp: Mapping[str, int]) -> float:
    return float(stamp['sec']) + float(stamp['nanosec']) / NS_PER_S
