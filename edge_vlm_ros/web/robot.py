"""What the page wants of a robot, whoever gives it: ROS, or a model and files without ROS.

All of it happens on the thread of one asyncio loop: the server calls a `Robot` there, and a
`Robot` calls back there. Whoever works on other threads hands over (`loop.call_soon_threadsafe`).
What goes to the page is plain data, named as the messages of `edge_vlm_ros/msg` name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Picture:
    """A camera's frame as the page shows it.

    Attributes:
        stamp_ns: The frame's own, as `FrameRef.stamp` names it; nanoseconds.
        jpeg: The file.
        is_whole: It has all pixels of the frame; False = it was shrunk.
    """

    stamp_ns: int
    jpeg: bytes = field(repr=False)
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that can be looked at.

    Attributes:
        name: As requests call it.
        topic: Or the file it plays.
        transport: 'raw' or 'compressed'; 'file' without ROS.
    """

    name: str
    topic: str = ''
    transport: str = ''


@dataclass(frozen=True, slots=True)
class Preset:
    """A question that has a name."""

    name: str
    question: str


@dataclass(frozen=True, slots=True)
class News:
    """Something that all pages shall hear; `kind` tells the page what."""

    kind: ClassVar[str] = ''

    def to_page(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {'kind': self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Facts(News):
    """What the robot is: its cameras and presets; its name is for people."""

    kind: ClassVar[str] = 'facts'
    name: str = ''
    cameras: tuple[Camera, ...] = ()
    presets: tuple[Preset, ...] = ()


@dataclass(frozen=True, slots=True)
class State(News):
    """How it does.

    Attributes:
        text: As `~/state`: a word, ': ' and more where there is more.
        is_there: False = nothing is heard of it.
    """

    kind: ClassVar[str] = 'state'
    text: str = ''
    is_there: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """The diagnostics of one part: engine, queue, a camera.

    Attributes:
        name: Such as 'queue' or 'camera front'.
        level: 0 = well, 1 = a warning, 2 = an error, 3 = stale.
        message: For people.
        values: By name.
    """

    name: str
    level: int = 0
    message: str = ''
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnostics(News):
    """All parts, about once a second."""

    kind: ClassVar[str] = 'diagnostics'
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Overheard(News):
    """A chunk of an answer to anybody's question.

    Attributes:
        request_id: The question's.
        delta: Text to append.
        done: It is the last one.
        question: What was asked, where that is known: the ROS graph does not carry it.
        error_code: As in `msg/AnswerChunk`; 0 unless it failed.
        error_code_name: The name of that.
        message: What happened, for people.
        total_s: Seconds from the question to the end of the answer; 0 until done.
    """

    kind: ClassVar[str] = 'overheard'
    request_id: str = ''
    delta: str = ''
    done: bool = False
    question: str = ''
    error_code: int = 0
    error_code_name: str = 'NONE'
    message: str = ''
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Watches(News):
    """The standing questions, with their state: one mapping each, as the robot lists them."""

    kind: ClassVar[str] = 'watches'
    watches: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class WatchEvent(News):
    """Something that a standing question saw; as the robot says it."""

    kind: ClassVar[str] = 'event'
    event: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A question from the page; its fields are those of `srv/Ask`.

    Attributes:
        request_id: Unique.
        question: Not empty.
        session_id: '' = none.
        cameras: Empty = the first one.
        last_seconds: 0 = the newest frame only.
        max_frames: 0 = what the robot finds right.
        choices: Empty = free text.
        timeout_s: 0 = the robot's own.
    """

    request_id: str
    question: str
    session_id: str = ''
    cameras: tuple[str, ...] = ()
    last_seconds: float = 0.0
    max_frames: int = 0
    choices: tuple[str, ...] = ()
    timeout_s: float = 0.0


class Robot(Protocol):
    """A robot that can be looked at and asked. The loop's thread alone."""

    def listen(self, hear: Callable[[News], None]) -> None:
        """Begin to say how it does: somebody has the page open. Facts and State come first.

        Args:
            hear: Called with all there is to say, until `mute`.
        """
        ...

    def mute(self) -> None:
        """Say nothing more, and spend nothing on it: nobody has the page open."""
        ...

    def open_camera(self, name: str, show: Callable[[Picture], None]) -> None:
        """Begin to show a camera, if there is one of that name.

        Args:
            name: As in `Facts.cameras`.
            show: Called with every picture, in their order, until `close_camera`; a picture may
                come again under its stamp, with all of its pixels.
        """
        ...

    def close_camera(self, name: str) -> None:
        """End `open_camera`."""
        ...

    def ask(
        self,
        request: Request,
        on_delta: Callable[[str], None],
        on_answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Ask. Exactly one answer comes, whatever happens.

        Args:
            request: What.
            on_delta: Called with text as it comes.
            on_answer: Called once, with the fields of `msg/Answer` and, beside them, the names
                `finish_reason_name` and `error_code_name`.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """End a question early; its answer still comes."""
        ...

    def reset_session(self, session_id: str) -> None:
        """Forget a conversation."""
        ...
