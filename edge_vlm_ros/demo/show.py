"""The demo, step by step, without ROS: `run.py` brings a robot that can be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_vlm_ros.core import NS_PER_S, RgbImage
from edge_vlm_ros.demo.console import Console
from edge_vlm_ros.demo.picture import Card, save_picture
from edge_vlm_ros.demo.questions import Plan, Query, truth_of_frames
from edge_vlm_ros.demo.truth import ClipTruth, is_right
from edge_vlm_ros.vision import open_media

ANSWER_TIMEOUT_S = 60.0
MOMENT_TIMEOUT_S = 20.0
MAX_TRIES = 5
RETRY_S = 1.5
"""A moment that has just left the answer open leaves it open a little longer."""
"""A question is asked again when the frames that were used leave its answer a toss-up."""
_READY = ' (made ready before)'


class DemoError(Exception):
    """The demo cannot go on; the message says at which step and why."""


@dataclass(frozen=True, slots=True)
class UsedFrame:
    """One frame an answer is based on.

    Attributes:
        camera: Its name.
        stamp_ns: The sensor's stamp (ROS time), nanoseconds.
        media_s: The moment of the clip it shows, seconds; None = not known.
    """

    camera: str
    stamp_ns: int
    media_s: float | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer of the node.

    Attributes:
        text: The answer.
        streamed: What came on the answer topic, joined.
        problem: What went wrong; '' = nothing.
        frames: Those used, oldest first.
        first_token_s: Question to first word, seconds.
        tokens_per_second: While decoding; 0 with fewer than two tokens.
        is_ready: Everything before the question's words was there when it came.
    """

    text: str
    streamed: str
    problem: str
    frames: tuple[UsedFrame, ...]
    first_token_s: float
    tokens_per_second: float
    is_ready: bool = False


class Robot(Protocol):
    """A camera and a node that can be asked about it."""

    def media_time_s(self) -> float | None:
        """Return which moment of the clip the camera shows now; None = it shows nothing yet."""
        ...

    def watched_s(self) -> float:
        """Return for how long the camera has been watched: older frames have no media time."""
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass while messages come in.

        Raises:
            DemoError: A process has ended.
        """
        ...

    def ask(self, query: Query, on_words: Callable[[str], None], timeout_s: float) -> Reply:
        """Ask; words go to `on_words` as they come.

        Raises:
            DemoError: Nothing came in time, or a process has ended.
        """
        ...

    def ask_ready(self, query: Query, on_words: Callable[[str], None], timeout_s: float) -> Reply:
        """Do as `ask`, of a node that makes ready what is asked about, after a hint.

        Raises:
            DemoError: As `ask`.
        """
        ...


@dataclass(slots=True)
class Show:
    """Asks one question of each topic and checks the answers; the last one again, made ready.

    Args:
        robot: Answers the questions.
        console: Where the outcome is shown.
        clip: The video the camera plays.
        truth: What is true in it.
    """

    robot: Robot
    console: Console
    clip: Path
    truth: ClipTruth
    cards: list[Card] = field(default_factory=list)
    _last: Reply | None = None

    def run(self) -> bool:
        """Ask everything; return whether every answer was right.

        Raises:
            DemoError: A process has ended, nothing came in time, or no moment has one true answer.
        """
        plan = Plan(self.truth)
        if not plan.topics:
            raise DemoError(f'choosing questions: {self.clip.name} has no moment that is clear')
        results = [self._ask_topic(plan, topic) for topic in plan.topics]
        results.append(self._ask_topic(plan, plan.topics[-1], cold=self._last))
        return all(results)

    def save_picture(self, path: Path, title: str) -> None:
        """Write the picture of all questions."""
        save_picture(path, title, self.cards)

    def _ask_topic(self, plan: Plan, topic: str, cold: Reply | None = None) -> bool:
        """Ask about a topic until the answer is clear; return whether it was right.

        Args:
            plan: What can be asked.
            topic: About what.
            cold: The reply to compare with one that is made ready; None = it is not.
        """
        ask = self.robot.ask if cold is None else self.robot.ask_ready
        for _ in range(MAX_TRIES):
            query = self._wait_for_moment(plan, topic)
            self.console.question(query.words + ('' if cold is None else _READY))
            self._last = reply = ask(query, self.console.words, ANSWER_TIMEOUT_S)
            self.console.detail(_frame_list(reply.frames))
            self.console.detail(_facts(reply, cold))
            if reply.problem:
                raise DemoError(f'asking {query.words!r}: {reply.problem}')
            times_s = [frame.media_s for frame in reply.frames if frame.media_s is not None]
            is_known = bool(times_s) and len(times_s) == len(reply.frames)
            true_answer = truth_of_frames(query, self.truth, times_s) if is_known else None
            if true_answer is not None:
                return self._judge(query, reply, times_s, true_answer, cold)
            self.console.detail('these frames leave the answer open; asking again')
            self.robot.wait(RETRY_S)
        raise DemoError(f'asking about {topic}: no clear moment in {MAX_TRIES} tries')

    def _wait_for_moment(self, plan: Plan, topic: str) -> Query:
        deadline = time.monotonic() + MOMENT_TIMEOUT_S + self.truth.length_s
        while time.monotonic() < deadline:
            now_s = self.robot.media_time_s()
            query = None if now_s is None else plan.query_now(now_s, topic)
            if query is not None and self.robot.watched_s() > query.seconds:
                return query
            self.robot.wait(0.02)
        raise DemoError(f'waiting for a clear moment to ask about {topic}: none came')

    def _judge(
        self,
        query: Query,
        reply: Reply,
        times_s: Sequence[float],
        true_answer: str,
        cold: Reply | None,
    ) -> bool:
        """Compare with the truth, and with what was streamed; show the outcome."""
        if reply.streamed != reply.text:
            raise DemoError(
                f'streaming: the words on the answer topic were {reply.streamed!r}, '
                f'the answer is {reply.text!r}'
            )
        good = is_right(reply.text, true_answer)
        self.console.verdict(good=good, text='right' if good else f'wrong: {true_answer}')
        frames = frames_at(self.clip, times_s)
        words = query.words + ('' if cold is None else _READY)
        self.cards.append(Card(frames, words, reply.text, _facts(reply, cold), good))
        return good


def _facts(reply: Reply, cold: Reply | None = None) -> str:
    """Say how many frames an answer is based on, of which moment, and how fast it came.

    Args:
        reply: The answer.
        cold: The one to the same question that nothing was made ready for.
    """
    count = len(reply.frames)
    seen = f'{count} frame{"" if count == 1 else "s"}'
    if count:
        first, last = reply.frames[0].media_s, reply.frames[-1].media_s
        if first is not None and last is not None:
            seen += f' at {last:.2f} s' if count == 1 else f', {first:.2f} to {last:.2f} s'
    if cold is not None:
        how = 'ready' if reply.is_ready else 'not ready in time'
        first, before = 1e3 * reply.first_token_s, 1e3 * cold.first_token_s
        return f'{seen}; {how}: first word after {first:.0f} ms, cold after {before:.0f} ms'
    speed = f', {reply.tokens_per_second:.0f} tokens/s' if reply.tokens_per_second else ''
    return f'{seen}; first word after {reply.first_token_s:.2f} s{speed}'


def _frame_list(frames: Sequence[UsedFrame]) -> str:
    """Name the frames as a robot would: camera and stamps (ROS time, seconds)."""
    if not frames:
        return 'no frames used'
    stamps = [f'{frame.stamp_ns / NS_PER_S:.3f}' for frame in frames]
    shown = [stamps[0], *(f'..{stamp[-7:]}' for stamp in stamps[1:])]
    return f'{frames[-1].camera}, stamp{"s" if len(shown) > 1 else ""} {" ".join(shown)}'


def frames_at(clip: Path, times_s: Sequence[float]) -> list[RgbImage]:
    """Read the frames of a video nearest to these times, in their order."""
    with open_media(clip) as media:
        wanted = [round(time_s * media.fps) for time_s in times_s]
        last = max(wanted)
        found: dict[int, RgbImage] = {}
        for number, (pixels, _) in enumerate(media):
            if number in wanted:
                found[number] = np.array(pixels)
            if number >= last:
                break
    return [found[number] for number in wanted if number in found]
