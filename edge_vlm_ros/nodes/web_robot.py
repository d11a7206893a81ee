"""The `vlm` node as the page wants a robot: two threads, and two ways over between them.

The page's loop is the main thread, rclpy's executor has one of its own. All of rclpy is called on
the executor's thread (`ExecutorInbox`), all of the page on the loop's (`call_soon_threadsafe`):
there is no lock.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup

from edge_vlm_ros.core import NotReadyError
from edge_vlm_ros.nodes.executor_inbox import ExecutorInbox
from edge_vlm_ros.nodes.parameter_sets import ParameterSets
from edge_vlm_ros.nodes.web_camera import WebCamera
from edge_vlm_ros.nodes.web_goals import Goals
from edge_vlm_ros.nodes.web_hearing import Hearing
from edge_vlm_ros.nodes.web_parameters import declare_parameters, read_settings
from edge_vlm_ros.srv import ResetSession
from edge_vlm_ros.web import Facts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from edge_vlm_ros.web import News, Picture, Request


class WebNode(ParameterSets):
    """The page's process on the ROS graph; opens nothing until somebody has the page open.

    The executor's thread alone, but for `inbox`.

    Args:
        options: For `rclpy.node.Node`: namespace, parameter_overrides, context, ...

    Raises:
        SettingsError: A parameter was given what makes no sense.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__('vlm_web', **options)
        declare_parameters(self.parameters)
        self.settings = read_settings(self)
        name = self.settings.vlm
        self.vlm = name if name.startswith('/') else f'{self.get_namespace().rstrip("/")}/{name}'
        self.inbox = ExecutorInbox(self, ReentrantCallbackGroup())
        self._hear: Callable[[News], None] | None = None
        self._hearing: Hearing | None = None
        self._goals: Goals | None = None
        self._resets: Any = None
        self._shows: dict[str, Callable[[Picture], None]] = {}
        self._cameras: dict[str, WebCamera] = {}
        self._facts = Facts(name=self.vlm)

    def listen(self, hear: Callable[[News], None]) -> None:
        """See `Robot.listen`."""
        self._hear = hear
        if self._goals is None:  # Else the last page's questions are about to end.
            self._goals = Goals(self, self.vlm, self._catch)
        self._resets = self.create_client(ResetSession, f'{self.vlm}/reset_session')
        self._hearing = Hearing(
            self, self.vlm, facts=self._facts, hear=self._pass_on, on_lost=self._on_lost
        )

    def mute(self) -> None:
        """See `Robot.mute`."""
        self._hear = None
        if self._hearing is not None:
            self._hearing.close()
            self._hearing = None
            self.destroy_client(self._resets)
        self._close_goals_when_idle()

    def open_camera(self, name: str, show: Callable[[Picture], None]) -> None:
        """See `Robot.open_camera`."""
        self._shows[name] = show
        self._follow(name)

    def close_camera(self, name: str) -> None:
        """See `Robot.close_camera`."""
        self._shows.pop(name, None)
        self._follow(name)

    def ask(
        self,
        request: Request,
        on_delta: Callable[[str], None],
        on_answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """See `Robot.ask`."""
        if self._goals is None:
            self._goals = Goals(self, self.vlm, self._catch)

        def answer(fields: Mapping[str, Any]) -> None:
            on_answer(fields)
            self._close_goals_when_idle()

        self._goals.ask(request, on_delta, answer)

    def cancel(self, request_id: str) -> None:
        """See `Robot.cancel`."""
        if self._goals is not None:
            self._goals.cancel(request_id)

    def reset_session(self, session_id: str) -> None:
        """See `Robot.reset_session`."""
        if self._hearing is not None and self._resets.service_is_ready():
            self._resets.call_async(ResetSession.Request(session_id=session_id))

    def close(self) -> None:
        """End all of it; what is open is answered."""
        self.mute()
        if self._goals is not None:
            self._goals.close()
            self._goals = None
        for name in list(self._shows):
            self.close_camera(name)

    def _close_goals_when_idle(self) -> None:
        # An action client listens to the feedback of everybody's goals.
        if self._goals is not None and self._hear is None and self._goals.is_idle:
            self._goals.close()
            self._goals = None

    def _pass_on(self, news: News) -> None:
        if isinstance(news, Facts):
            self._facts = news
            for name in list(self._shows):
                self._follow(name)
        if self._hear is not None:
            self._hear(news)

    def _follow(self, name: str) -> None:
        """Look at a camera exactly if somebody wants to, where it is now."""
        known = {camera.name: camera for camera in self._facts.cameras}
        wanted = known.get(name) if name in self._shows else None
        present = self._cameras.get(name)
        if present is not None and (wanted is None or present.camera != wanted):
            present.close()
            del self._cameras[name]
        if wanted is not None and name not in self._cameras:
            self._cameras[name] = WebCamera(self, wanted, self._shows[name])

    def _catch(self, request: Request) -> None:
        first = tuple(camera.name for camera in self._facts.cameras[:1])
        names = request.cameras or first
        for name in names:
            if name in self._cameras:
                self._cameras[name].catch()

    def _on_lost(self) -> None:
        if self._goals is not None:
            self._goals.end_all(
                NotReadyError(f'{self.vlm} is gone, or was started again: ask once more')
            )


class RosRobot:
    """A `Robot` over ROS; the loop's thread alone.

    Args:
        node: Does the work, on the executor's thread.
        loop: The page's.
    """

    def __init__(self, node: WebNode, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._loop = loop

    def listen(self, hear: Callable[[News], None]) -> None:
        """See `Robot`."""
        self._node.inbox.put(lambda: self._node.listen(self._over(hear)))

    def mute(self) -> None:
        """See `Robot`."""
        self._node.inbox.put(self._node.mute)

    def open_camera(self, name: str, show: Callable[[Picture], None]) -> None:
        """See `Robot`."""
        self._node.inbox.put(lambda: self._node.open_camera(name, self._over(show)))

    def close_camera(self, name: str) -> None:
        """See `Robot`."""
        self._node.inbox.put(lambda: self._node.close_camera(name))

    def ask(
        self,
        request: Request,
        on_delta: Callable[[str], None],
        on_answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """See `Robot`."""
        delta, answer = self._over(on_delta), self._over(on_answer)
        self._node.inbox.put(lambda: self._node.ask(request, delta, answer))

    def cancel(self, request_id: str) -> None:
        """See `Robot`."""
        self._node.inbox.put(lambda: self._node.cancel(request_id))

    def reset_session(self, session_id: str) -> None:
        """See `Robot`."""
        self._node.inbox.put(lambda: self._node.reset_session(session_id))

    def _over(self, call: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return what calls on the loop's thread, from any other."""

        def hand_over(value: Any) -> None:
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody wants it.
                self._loop.call_soon_threadsafe(call, value)

        return hand_over
