"""`make demo`: a robot camera plays a clip, the `vlm` node is asked about it over real ROS 2.

Starts the camera and the node as separate processes, asks, shows the answers as they stream
in, compares them with what is true in the clip, and ends everything.

Exit codes: 0 every answer was right; 1 an answer was wrong; 2 bad usage; 3 a step failed or
nothing came in time (the message says which step); 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.demo.console import Console
from edge_vlm_ros.demo.processes import StartedProcess, StartedProcesses
from edge_vlm_ros.demo.questions import Query
from edge_vlm_ros.demo.show import DemoError, Reply, Show, UsedFrame
from edge_vlm_ros.demo.truth import ClipTruth

CLIPS = Path(__file__).with_name('clips')
CAMERA_TIMEOUT_S = 30.0
MODEL_TIMEOUT_S = 120.0
LAST_DOMAIN = 101
READY = 'ready'
"""Namespace of a second node, which makes ready what it may be asked about."""
HINT_S = 0.15
"""So long before a question it is hinted at."""
OK, WRONG, FAILED, INTERRUPTED = 0, 1, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    args = _parse(argv)
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(args, console)
    except DemoError as error:
        console.line()
        console.line(f'failed while {error}')
        return FAILED
    except KeyboardInterrupt:
        console.line()
        console.line('interrupted; everything was stopped')
        return INTERRUPTED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m edge_vlm_ros.demo.run',
        description='A robot camera plays a clip, the vlm node is asked about it over ROS 2.',
    )
    parser.add_argument('--chip', default='cpu', help='default: cpu')
    parser.add_argument('--model', default='demo', help='default: demo')
    parser.add_argument(
        '--clip', type=Path, metavar='FILE', help='a video with its truth beside it (FILE.json)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('build/demo'), metavar='DIR', help='default: build/demo'
    )
    parser.add_argument(
        '--domain',
        type=int,
        default=0,
        choices=range(LAST_DOMAIN + 1),
        metavar='N',
        help='ROS domain, 1 to 101; default: one at random, so that nothing else takes part',
    )
    args = parser.parse_args(argv)
    if args.clip is None:
        args.clip = next(iter(sorted(CLIPS.glob('*.mp4'))), None)
        if args.clip is None:
            parser.error(f'no clip in {CLIPS}: the package is not whole')
    if not args.clip.with_suffix('.json').is_file():
        parser.error(f'no {args.clip.with_suffix(".json")}: what is true in the clip is not known')
    return args


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(args: argparse.Namespace, console: Console) -> int:
    """Start, ask, stop."""
    picture = args.out / 'answer.png'
    args.out.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    _set_environment(args.domain or random.randint(1, LAST_DOMAIN))  # noqa: S311 (no secret)
    console.title('edge_vlm_ros: ask a robot what its camera sees')
    with StartedProcesses() as children:
        env = {**os.environ, 'PYTHONUNBUFFERED': '1'}
        log = args.out / 'camera.log'
        words = _parameters(source=str(args.clip.resolve()))
        children.start('the camera', 'edge_vlm_ros.nodes.camera_main', words, env, log)
        log = args.out / 'vlm.log'
        words = _parameters(chip=args.chip, model=args.model)
        children.start('the vlm node', 'edge_vlm_ros.nodes.vlm_main', words, env, log)
        log = args.out / 'vlm_ready.log'
        words = _parameters(chip=args.chip, model=args.model, ahead_mode='prefill')
        words += ['-r', f'__ns:=/{READY}', '-r', 'image_raw:=/image_raw']
        name = 'the vlm node that makes ready'
        children.start(name, 'edge_vlm_ros.nodes.vlm_main', words, env, log)
        # After the processes: a fork of a process that has ROS threads is not safe.
        robot = RosRobot(children)
        try:
            show = Show(robot, console, args.clip, ClipTruth.load(args.clip.with_suffix('.json')))
            console.step('camera', f'playing {args.clip.name} on /image_raw')
            robot.wait_for_camera()
            console.step('model', f'loading {args.model} on {args.chip} ...')
            started_s = time.monotonic()
            robot.wait_until_ready()
            console.step('model', f'ready after {time.monotonic() - started_s:.1f} s')
            good = show.run()
        finally:
            robot.close()
    show.save_picture(picture, f'edge_vlm_ros: model {args.model} on {args.chip}')
    asked, right = len(show.cards), sum(card.good for card in show.cards)
    console.line()
    console.line(f'{right} of {asked} answers are right; picture: {picture}')
    return OK if good else WRONG


def _set_environment(domain: int) -> None:
    """Keep this demo apart from every other ROS system; its processes inherit this."""
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


def _parameters(**values: str) -> list[str]:
    return ['--ros-args', *(w for name, v in values.items() for w in ('-p', f'{name}:={v}'))]


class RosRobot:
    """The camera and the node, seen from a client of the ROS graph.

    Args:
        children: The processes that are to live on.

    Raises:
        DemoError: ROS 2 or this package's interfaces cannot be imported.
    """

    def __init__(self, children: StartedProcesses) -> None:
        try:
            import rclpy
            from rclpy.executors import SingleThreadedExecutor
            from rclpy.signals import SignalHandlerOptions
            from sensor_msgs.msg import TimeReference
            from std_msgs.msg import String

            from edge_vlm_ros.msg import AnswerChunk, Hint
            from edge_vlm_ros.srv import Ask
        except ImportError as error:
            raise DemoError(f'importing ROS 2: {error}; `edge-vlm doctor` says more') from error
        self._children = children
        self._ask_type: Any = Ask
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('demo', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._media_ns: dict[int, int] = {}
        self._newest_media_ns: int | None = None
        self._watched_from_s = 0.0
        self._states = dict.fromkeys(('', READY), '')
        self._request_id = ''
        self._deltas: dict[int, str] = {}
        self._on_words: Callable[[str], None] = lambda _: None
        self._clients: dict[str, Any] = {}
        self._node.create_subscription(TimeReference, 'camera/media_time', self._on_time, 100)
        for space in self._states:
            self._clients[space] = self._node.create_client(Ask, f'{space}/ask'.strip('/'))
            name = f'{space}/vlm'.strip('/')
            on_state = partial(self._on_state, space)
            self._node.create_subscription(String, f'{name}/state', on_state, _latched())
            self._node.create_subscription(AnswerChunk, f'{name}/answer', self._on_chunk, 500)
        self._hint_type: Any = Hint
        self._hints: Any = self._node.create_publisher(Hint, f'{READY}/vlm/hint', 10)

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait(self, seconds: float) -> None:
        """Let time pass while messages come in."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self._spin(left_s)

    def wait_for_camera(self) -> None:
        """Wait for the first frame.

        Raises:
            DemoError: No frame came within `CAMERA_TIMEOUT_S`, or a process has ended.
        """
        deadline = time.monotonic() + CAMERA_TIMEOUT_S
        while self._newest_media_ns is None:
            self._check(deadline, 'waiting for the first frame of the camera')

    def wait_until_ready(self) -> None:
        """Wait until both nodes say that their models are loaded, and answer service calls.

        Raises:
            DemoError: The model failed to load or took over `MODEL_TIMEOUT_S`, or a process has
                ended.
        """
        deadline = time.monotonic() + MODEL_TIMEOUT_S
        while any(state != 'ready' for state in self._states.values()):
            self._check(deadline, 'loading the model')
            for state in self._states.values():
                if state.startswith('failed'):
                    raise DemoError(f'loading the model: {state}')
        for space, client in self._clients.items():
            while not client.service_is_ready():
                self._check(deadline, f'waiting for the service {client.srv_name}')
            topic = f'/{space}/vlm/answer'.replace('//', '/')
            while not self._node.count_publishers(topic):
                self._check(deadline, f'waiting for the topic {topic}')
        while not self._hints.get_subscription_count():
            self._check(deadline, 'waiting for whoever hears hints')
        self._watched_from_s = time.monotonic()  # Both store what the camera sends from here on.

    def media_time_s(self) -> float | None:
        """Return which moment of the clip the camera shows now."""
        if self._newest_media_ns is None:
            return None
        return self._newest_media_ns / NS_PER_S

    def watched_s(self) -> float:
        """Return for how long the camera has been watched."""
        return time.monotonic() - self._watched_from_s if self._watched_from_s else 0.0

    def ask(self, query: Query, on_words: Callable[[str], None], timeout_s: float) -> Reply:
        """Call the service /ask; meanwhile the words come on /vlm/answer."""
        return self._ask('', query, on_words, timeout_s)

    def ask_ready(self, query: Query, on_words: Callable[[str], None], timeout_s: float) -> Reply:
        """Hint, then call the service of the node that makes ready."""
        self._hints.publish(self._hint_type())
        self.wait(HINT_S)
        return self._ask(READY, query, on_words, timeout_s)

    def _ask(
        self, space: str, query: Query, on_words: Callable[[str], None], timeout_s: float
    ) -> Reply:
        request = self._ask_type.Request(
            question=query.words,
            request_id=uuid.uuid4().hex,
            last_seconds=query.seconds,
            max_frames=query.frames,
            timeout_s=timeout_s,
        )
        self._deltas.clear()
        self._request_id, self._on_words = request.request_id, on_words
        call = self._clients[space].call_async(request)
        deadline = time.monotonic() + timeout_s + 5.0
        while not call.done() or not self._is_stream_done:
            self._check(deadline, f'waiting for the answer to {query.words!r}')
        return self._reply(call.result().answer)

    @property
    def _is_stream_done(self) -> bool:
        return self._request_id == ''

    def _reply(self, answer: Any) -> Reply:
        stats = answer.stats
        frames = tuple(
            UsedFrame(frame.camera, stamp, self._media_s(stamp))
            for frame in answer.frames
            for stamp in [_nanoseconds(frame.header.stamp)]
        )
        problem = f'{answer.message} (error {answer.error_code})' if answer.error_code else ''
        streamed = ''.join(delta for _, delta in sorted(self._deltas.items()))
        return Reply(
            text=answer.text,
            streamed=streamed,
            problem=problem,
            frames=frames,
            first_token_s=stats.time_to_first_token_s,
            tokens_per_second=stats.tokens_per_second,
            is_ready=answer.ahead == answer.AHEAD_PREFIX,
        )

    def _media_s(self, stamp_ns: int) -> float | None:
        media_ns = self._media_ns.get(stamp_ns)
        return None if media_ns is None else media_ns / NS_PER_S

    def _check(self, deadline: float, step: str) -> None:
        """Let messages come in; raise once the step took too long."""
        if time.monotonic() > deadline:
            raise DemoError(f'{step}: nothing came in time\n{self._logs()}')
        self._spin(0.05)

    def _spin(self, timeout_s: float) -> None:
        self._executor.spin_once(timeout_sec=timeout_s)
        ended = self._children.ended()
        if ended is not None:
            raise DemoError(f'{ended.name} ended with {ended.returncode}\n{_tail(ended)}')

    def _logs(self) -> str:
        return '\n'.join(_tail(child) for child in self._children.running)

    def _on_time(self, message: Any) -> None:
        media_ns = _nanoseconds(message.time_ref)
        self._media_ns[_nanoseconds(message.header.stamp)] = media_ns
        self._newest_media_ns = media_ns
        self._watched_from_s = self._watched_from_s or time.monotonic()

    def _on_state(self, space: str, message: Any) -> None:
        self._states[space] = message.data

    def _on_chunk(self, message: Any) -> None:
        if message.request_id != self._request_id:
            return
        self._deltas[message.sequence] = message.delta
        self._on_words(message.delta)
        if message.done:
            self._request_id = ''


def _latched() -> Any:
    from rclpy.qos import DurabilityPolicy, QoSProfile

    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def _tail(child: StartedProcess) -> str:
    lines = '\n'.join(f'  {line}' for line in child.last_lines())
    return f'last words of {child.name} ({child.log}):\n{lines}'


if __name__ == '__main__':
    sys.exit(main())
