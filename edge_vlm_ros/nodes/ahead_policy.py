"""Which frames the next question will show, what is wished of the backend, what a question shows.

Between questions the newest frames of the watched cameras are looked at, windows are kept up, and
the backend is told what the next question is expected to show: the window, or what would be the
next turn of a conversation that is live. A question that is about just that is given the window's
frames where the scene has not changed since; where it has, the newest frame with them. Whatever
else a question asks for goes its usual way, untouched.

Free of ROS; one thread.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import Prefix, Readiness
from edge_vlm_ros.nodes.ahead_choice import are_same, choose_frames, covers, keys_of
from edge_vlm_ros.nodes.ahead_parameters import PREFILL
from edge_vlm_ros.nodes.conversions import time_from_ros
from edge_vlm_ros.nodes.looks import Looks
from edge_vlm_ros.scheduling import WatchedWindow
from edge_vlm_ros.serving.ahead import AheadReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edge_vlm_ros.core import Answer, BadFrame, Clock, ShownAs, StoredFrame
    from edge_vlm_ros.nodes.admission import Admitted, Feed
    from edge_vlm_ros.nodes.ahead_parameters import AheadSettings
    from edge_vlm_ros.nodes.node_time import Moment
    from edge_vlm_ros.serving.ahead import PreparesAhead


@dataclass(slots=True)
class _Conversation:
    """The conversation that was spoken in last.

    Attributes:
        session_id: Its name.
        system_prompt: That of its last question.
        window: The newest still of each camera that it is about.
        shown: What of it the conversation has shown already.
        until_ns: Until when it is live, steady time.
    """

    session_id: str
    system_prompt: str
    window: WatchedWindow
    shown: tuple[StoredFrame, ...]
    until_ns: int

    @property
    def fresh(self) -> tuple[StoredFrame, ...]:
        """What its next turn would show; nothing while the scene is as it was shown."""
        frames = self.window.frames
        return () if are_same(frames, self.shown) else frames


@dataclass(slots=True)
class AheadCounts:
    """What became of what was made ready, since the node was activated.

    Attributes:
        questions: How many had how much ready when they came.
        hints: How many came.
    """

    questions: Counter[Readiness] = field(default_factory=Counter)
    hints: int = 0


class AheadPolicy:
    """Keeps the windows of one node, and tells its backend.

    Args:
        settings: What is made ready.
        feeds: Cameras by name.
        backend: Told what is wanted.
        clock: Steady time.
    """

    def __init__(
        self,
        settings: AheadSettings,
        feeds: Mapping[str, Feed],
        backend: PreparesAhead,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.counts = AheadCounts()
        self.report = AheadReport()
        self.looks = Looks(clock)
        self.kv_slots = 1
        """Prompts that the engine's KV cache holds side by side."""

        self.is_loaded = False
        """Whether there is a model: before, the backend lets go of what is offered."""

        self._feeds = feeds
        self._backend = backend
        self._windows = {
            names: WatchedWindow(names, settings.window()) for names in settings.watches
        }
        self._asked_about = next(iter(self._windows))
        self._asked_until_ns = 0
        self._hinted_session = ''
        self._hinted_until_ns = 0
        self._talk: _Conversation | None = None
        self._wish: Prefix | None = None
        self._offered: dict[tuple[str, ...], tuple[StoredFrame, ...]] = {}

    @property
    def added(self) -> int:
        """Frames that were taken because the scene had changed, or it was time."""
        return sum(window.counts.added for window in self._windows.values())

    @property
    def wanted(self) -> Prefix | None:
        """What the backend was told last."""
        return self._wish

    def fit(self, max_images: int) -> None:
        """Hold no more frames than the model takes images; 0 = as many as are wanted."""
        for window in self._windows.values():
            window.fit(max_images)

    # --- between questions -----------------------------------------------------------------------

    def check(self, now_ns: int, system_prompt: str, *, is_paused: bool = False) -> None:
        """Look at the cameras' newest frames where that can lead to anything; tell the backend.

        Args:
            now_ns: Steady time, nanoseconds.
            system_prompt: That of a question which says none.
            is_paused: Nothing is wanted just now; the windows are kept up all the same.

        Raises:
            EdgeVlmError: The backend takes no wishes (any more).
        """
        is_live = self._is_live(now_ns)
        # One look serves all windows of a camera.
        rested = [name for name in self._feeds if self.looks.is_rested(name)]
        for window in self._all_windows():
            for name in window.cameras:
                newest = self._feeds[name].newest if name in rested else None
                if newest is None:
                    continue
                if window.wants_look(newest, now_ns, is_live=is_live):
                    window.see(newest, self.looks.at(newest), now_ns, is_live=is_live)
        self._tell(now_ns, system_prompt, is_paused=is_paused)

    def hint(
        self, cameras: Sequence[str], session_id: str, now_ns: int, system_prompt: str = ''
    ) -> bool:
        """Take the newest frames at once: a question is about to come.

        Args:
            cameras: That it will be about; none = those that are watched first.
            session_id: The conversation that it will go on with; '' = none.
            now_ns: Steady time, nanoseconds.
            system_prompt: That of a question which says none.

        Returns:
            Whether that can be made ready: these cameras are watched together, or there is the
            conversation.
        """
        self.counts.hints += 1
        until_ns = now_ns + self.settings.live_ns
        names = tuple(dict.fromkeys(cameras)) or next(iter(self._windows))
        talk = self._talk
        if session_id and (talk is None or talk.session_id != session_id):
            stills = self._stills(name for name in names if name in self._feeds)
            talk = self._talk = _Conversation(session_id, system_prompt, stills, (), until_ns)
        if session_id and talk is not None:
            window = talk.window
            talk.until_ns = until_ns
        elif names in self._windows:
            window = self._windows[names]
            self._asked_about, self._asked_until_ns = names, until_ns
        else:
            return False
        self._hinted_session, self._hinted_until_ns = session_id, until_ns
        for name in window.cameras:
            newest = self._feeds[name].newest
            if newest is not None:
                window.add(newest, self.looks.at(newest), now_ns)
        return True

    def on_report(self, report: AheadReport) -> None:
        """Take note of what is ready; what does not fit or is damaged goes."""
        self.report = report
        if report.bad_frames:
            self.drop_bad(report.bad_frames)
        for window in self._windows.values():
            if keys_of(window.previous) != report.ready:
                window.forget_previous()
        wish = self._wish
        if wish is None or keys_of(wish.frames) != report.wanted:
            return  # The report is about an older one.
        for window in self._windows.values():
            if not are_same(window.frames, wish.frames):
                continue
            if report.fits:
                window.fit(report.fits)
            elif report.problem and not report.bad_frames:
                window.spoil()

    def lose(self) -> None:
        """Take note that the model process is gone, and all that was ready with it.

        The next one is told the newest wish by the backend, but not what was offered.
        """
        self.report = replace(self.report, ready=(), tokens=0)
        self._offered.clear()

    def drop_bad(self, bad_frames: Iterable[BadFrame]) -> None:
        """Forget frames that turned out to be damaged."""
        bad = tuple(bad_frames)
        for window in self._all_windows():
            window.drop(bad)

    def forget(self, session_id: str) -> None:
        """Forget a conversation, or all ('')."""
        if self._talk is not None and session_id in {'', self._talk.session_id}:
            self._talk = None

    def clear(self) -> None:
        """Forget all frames: the clock has jumped."""
        for window in self._all_windows():
            window.clear()
        self._talk = None

    def close(self) -> None:
        """Want nothing any more.

        Raises:
            EdgeVlmError: The backend takes no wishes any more.
        """
        self.clear()
        if self._wish is not None:
            self._wish = None
            self._backend.want_prefix(None)

    # --- a question ------------------------------------------------------------------------------

    def choose(
        self, admitted: Admitted, now: Moment, *, has_turns: bool, system_prompt: str
    ) -> Admitted:
        """Give a question the frames that were made ready, where it is about these.

        Args:
            admitted: With the frames that it shows if nothing is ready: the newest are fresh.
            now: The moment that ages are counted from.
            has_turns: Its conversation has had a turn.
            system_prompt: That of a question which says none.
        """
        question, request = admitted.question, admitted.request
        cameras = tuple(dict.fromkeys(frame.source.camera for frame in question.frames))
        is_plain = question.system_prompt == system_prompt and not time_from_ros(request.as_of)
        if not cameras or '' in cameras or not is_plain:
            return admitted
        window = self._window_for(question.session_id if has_turns else '', cameras)
        if window is None or not covers(window, request, now):
            return admitted
        report = self.report
        return choose_frames(
            admitted,
            window,
            now,
            looks=self.looks,
            is_ready=lambda frames: keys_of(frames) == report.ready,
            has_slots=self.kv_slots > 1,
        )

    def answered(self, admitted: Admitted, answer: Answer, now_ns: int) -> None:
        """Take note of how a question ended; the next is expected to be like it.

        Args:
            admitted: The question.
            answer: How it ended.
            now_ns: Steady time, nanoseconds.
        """
        question = admitted.question
        if not answer.success:
            return
        self._hinted_until_ns = 0  # It has come.
        if question.frames and all(frame.source.camera for frame in question.frames):
            self.counts.questions[answer.readiness] += 1
        cameras = tuple(dict.fromkeys(frame.source.camera for frame in question.frames))
        if cameras in self._windows:
            self._asked_about = cameras
            self._asked_until_ns = now_ns + self.settings.live_ns
        if question.session_id:
            self._note_turn(admitted, cameras, now_ns)

    def _note_turn(self, admitted: Admitted, cameras: tuple[str, ...], now_ns: int) -> None:
        question, talk = admitted.question, self._talk
        until_ns = now_ns + self.settings.live_ns
        if talk is not None and talk.session_id == question.session_id and not cameras:
            talk.until_ns = until_ns
            return
        window = self._stills(name for name in cameras if name in self._feeds)
        newest = {frame.source.camera: frame for frame in question.frames}
        for name in window.cameras:
            window.add(newest[name], self.looks.at(newest[name]), now_ns)
        self._talk = _Conversation(
            question.session_id, question.system_prompt, window, window.frames, until_ns
        )

    # --- within ----------------------------------------------------------------------------------

    def _stills(self, cameras: Iterable[str]) -> WatchedWindow:
        return WatchedWindow(tuple(cameras), replace(self.settings.window(), frames=1))

    def _all_windows(self) -> tuple[WatchedWindow, ...]:
        talk = self._talk
        return (*self._windows.values(), *((talk.window,) if talk is not None else ()))

    def _is_live(self, now_ns: int) -> bool:
        talk = self._talk
        return now_ns < max(self._hinted_until_ns, talk.until_ns if talk is not None else 0)

    def _window_for(self, session_id: str, cameras: tuple[str, ...]) -> WatchedWindow | None:
        """Return the window of what is asked about; None = nobody watches that."""
        if not session_id:
            return self._windows.get(cameras)
        talk = self._talk
        if talk is None or talk.session_id != session_id or talk.window.cameras != cameras:
            return None
        return talk.window

    def _tell(self, now_ns: int, system_prompt: str, *, is_paused: bool) -> None:
        if now_ns >= self._asked_until_ns:
            self._asked_about = next(iter(self._windows))
        if self._talk is not None and now_ns >= self._talk.until_ns:
            self._talk = None
        if is_paused:
            self._want(None)
            return
        if self.settings.mode == PREFILL:
            self._want(self._next_prefix(system_prompt, now_ns))
        if not self.is_loaded:
            return
        for names, window in self._windows.items():
            self._offer(names, window.frames, window.shown_as)
        if self._talk is not None:
            self._offer((), self._talk.fresh, self._talk.window.shown_as)

    def _offer(
        self, names: tuple[str, ...], frames: tuple[StoredFrame, ...], shown_as: ShownAs
    ) -> None:
        """Have frames encoded, unless they are, or become part of a prefix."""
        is_wanted = self._wish is not None and are_same(frames, self._wish.frames)
        if frames and not is_wanted and not are_same(frames, self._offered.get(names, ())):
            self._offered[names] = frames
            self._backend.offer_frames(frames, shown_as)

    def _next_prefix(self, system_prompt: str, now_ns: int) -> Prefix:
        is_hinted = now_ns < self._hinted_until_ns
        talk = self._talk
        if talk is not None and not (is_hinted and talk.session_id != self._hinted_session):
            frames, shown_as = talk.fresh, talk.window.shown_as
            session_id, system_prompt = talk.session_id, talk.system_prompt
        else:
            window = self._windows[self._asked_about]
            frames, shown_as = window.frames if window.is_complete else (), window.shown_as
            session_id = ''
        return Prefix(frames, session_id, system_prompt, shown_as if frames else None, is_hinted)

    def _want(self, wish: Prefix | None) -> None:
        if not _are_alike(wish, self._wish):
            self._wish = wish
            self._backend.want_prefix(wish)


def _are_alike(one: Prefix | None, other: Prefix | None) -> bool:
    if one is None or other is None:
        return one is other
    if replace(one, frames=()) != replace(other, frames=()):
        return False
    return are_same(one.frames, other.frames)
