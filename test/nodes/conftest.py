"""A robot for a whole module: a domain of its own, processes, and a client that asks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from array import array
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import processes
from support.domains import own_domain
from support.environment import apply, on_domain
from support.patience import Patience

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / 'edge_vlm_ros' / 'demo' / 'clips' / 'box_cone_and_rolling_ball.mp4'
WAIT_S = 45.0


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """Give the module a ROS domain, processes in it, and a client."""
    with contextlib.ExitStack() as stack:
        yield Robot(tmp_path_factory.mktemp('robot'), stack)


@pytest.fixture
def other_robot(tmp_path):
    """Likewise, for a single test."""
    with contextlib.ExitStack() as stack:
        yield Robot(tmp_path, stack)


class Robot:
    """Processes on one ROS domain.

    Args:
        folder: For scripts and logs.
        stack: Ends what is started here.
    """

    def __init__(self, folder, stack):
        self.domain = stack.enter_context(own_domain())
        self.folder = folder
        self._stack = stack
        self._started = 0
        self._client = None

    def start(self, module, parameters=(), remaps=(), env=None):
        """Start `python -m edge_vlm_ros.nodes.<module>`; it is gone after the test.

        Args:
            module: The node's main module.
            parameters: By name.
            remaps: As on a ROS command line.
            env: Changes to its environment; never a copy of one, which would bring its own domain.
        """
        words = [sys.executable, '-m', f'edge_vlm_ros.nodes.{module}', '--ros-args']
        for name, value in dict(parameters).items():
            words += ['-p', f'{name}:={value}']
        for remap in remaps:
            words += ['-r', remap]
        return self.run(module, words, env)

    def run(self, name, words, env=None):
        """Start a command on this robot's domain; it is gone after the test."""
        log = self.folder / f'{name}-{self._started}.log'
        self._started += 1
        spawned = processes.spawn(words, log, on_domain(self.domain), env or {}, cwd=ROOT)
        self._stack.callback(spawned.stop)
        return spawned

    def vlm(self, parameters=(), remaps=(), env=None):
        """Start a vlm node."""
        return self.start('vlm_main', parameters, remaps, env)

    def server(self, port=0):
        """Start an OpenAI-compatible server that answers as scripted; return it and its port."""
        words = [sys.executable, '-m', 'support.serve_scripted', port]
        paths = os.pathsep.join([str(ROOT / 'test'), str(ROOT)])
        spawned = self.run('server', words, {'PYTHONPATH': paths})
        spawned.wait_for_output('serving at http://127.0.0.1:')
        address = spawned.output().partition('serving at ')[2].split()[0]
        return spawned, urlsplit(address).port

    def camera(self, parameters=(), remaps=()):
        """Start a camera that plays the shipped clip, small, over and over."""
        chosen = {'source': CLIP, 'fps': 10.0, 'width': 160, **dict(parameters)}
        return self.start('camera_main', chosen, remaps)

    def script(self, text, name='script.yaml'):
        """Write a script for chip scripted; return its path."""
        path = self.folder / name
        path.write_text(text)
        return path

    @property
    def client(self):
        """The node of the test's own process, made when first wanted."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self, namespace=''):
        """Make one more node in the test's own process."""
        with pytest.MonkeyPatch.context() as variables, warnings.catch_warnings():
            apply(on_domain(self.domain), variables)
            # The message generator, imported with the first message, imports old modules.
            warnings.simplefilter('ignore', DeprecationWarning)
            client = Client(self.domain, namespace)
        self._stack.callback(client.close)
        return client


class Client:
    """Asks the node, and hears everything that it says."""

    def __init__(self, domain, namespace=''):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from edge_vlm_ros.action import Ask as AskAction
        from edge_vlm_ros.msg import AnswerChunk
        from edge_vlm_ros.srv import Ask, Cancel, Describe, ResetSession
        from rclpy.action import ActionClient
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from std_msgs.msg import String

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('client', context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.chunks, self.texts, self.diagnostics, self.states = [], [], [], []
        node = self.node
        node.create_subscription(AnswerChunk, 'vlm/answer', self.chunks.append, 1000)
        node.create_subscription(
            String, 'vlm/answer_text', lambda m: self.texts.append(m.data), 100
        )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(
            String, 'vlm/state', lambda m: self.states.append(m.data), latched
        )
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)
        # Replies to other clients take room here, too.
        self._ask = node.create_client(Ask, 'ask', qos_profile=QoSProfile(depth=100))
        self._describe = node.create_client(Describe, 'describe')
        self._cancel = node.create_client(Cancel, 'vlm/cancel')
        self._reset = node.create_client(ResetSession, 'vlm/reset_session')
        # The default depth of 10 loses feedback where this process is kept from running.
        self.action = ActionClient(
            node, AskAction, 'vlm/ask', feedback_sub_qos_profile=QoSProfile(depth=1000)
        )
        self._parts = {'ask': Ask, 'describe': Describe, 'cancel': Cancel, 'reset': ResetSession}

    def close(self):
        self.action.destroy()
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()

    # --- waiting ---

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(0.02)

    def until(self, condition, timeout_s=WAIT_S, what='it'):
        patience = Patience(timeout_s)
        while not condition():
            if patience.is_over():
                pytest.fail(f'{what} did not come within {timeout_s} s')
            self.executor.spin_once(0.02)

    def result(self, future, timeout_s=WAIT_S):
        self.until(future.done, timeout_s, 'the reply')
        return future.result()

    # --- asking ---

    def call(self, kind, **fields):
        """Call a service; return its future."""
        client = getattr(self, f'_{kind}')
        self.until(client.service_is_ready, what=f'service {kind}')
        return client.call_async(self._parts[kind].Request(**fields))

    def ask(self, question, within_s=WAIT_S, **fields):
        """Ask and wait; return the answer."""
        response = self.result(self.call('ask', question=question, **fields), within_s)
        assert response.success == (response.answer.error_code == 0)
        return response.answer

    def ask_later(self, question, **fields):
        return self.call('ask', question=question, **fields)

    def describe(self, **fields):
        return self.result(self.call('describe', **fields)).answer

    def cancel(self, request_id=''):
        return self.result(self.call('cancel', request_id=request_id))

    def chunks_of(self, request_id):
        return [chunk for chunk in self.chunks if chunk.request_id == request_id]

    def all_chunks_of(self, request_id):
        """Wait for the final chunk, and a little for what must not follow; return all."""
        self.until(lambda: any(c.done for c in self.chunks_of(request_id)), what='final chunk')
        self.spin(0.1)
        return self.chunks_of(request_id)

    # --- showing ---

    def grey(self, brightness, stamp_ns=0, frame_id='', size=(8, 8)):
        """Return an image of one brightness, 0 to 255; script answers tell it by `{means}`."""
        from builtin_interfaces.msg import Time
        from sensor_msgs.msg import Image

        width, height = size
        image = Image(encoding='mono8', width=width, height=height, step=width)
        image.data = array('B', bytes([brightness]) * (width * height))
        image.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        image.header.frame_id = frame_id
        return image

    def project(self, topic='image_raw', **options):
        """Publish images from the test's own process while it spins; see `Projector`."""
        return Projector(self, topic, **options)

    # --- watching ---

    def until_state(self, word, timeout_s=WAIT_S):
        self.until(
            lambda: bool(self.states) and self.states[-1].startswith(word),
            timeout_s,
            f'state {word}',
        )

    def status(self, name, vlm=''):
        """Return the newest diagnostic status of that name; None = there is none yet."""
        vlm = vlm or f'{self.node.get_namespace().rstrip("/")}/vlm'
        for message in reversed(self.diagnostics):
            for status in message.status:
                if status.name == f'{vlm}: {name}':
                    return status
        return None

    def level(self, name, vlm=''):
        """Return a status's level as a number (the message has it as one byte); None = none."""
        status = self.status(name, vlm)
        if status is None:
            return None
        return status.level[0] if isinstance(status.level, bytes) else status.level

    def until_frames(self, camera='camera', timeout_s=WAIT_S):
        """Wait until the node says that the camera is well."""
        self.until(
            lambda: self.level(f'camera {camera}') == 0,
            timeout_s,
            f'frames of {camera}',
        )

    def _on_diagnostics(self, message):
        self.diagnostics.append(message)
        del self.diagnostics[:-20]


class Projector:
    """A camera in the test's own process: one image every 0.1 s while the client spins.

    Args:
        client: Whose node publishes.
        topic: Where.
        brightness: Of all its images.
        reliability: 'best_effort' or 'reliable'.
        clock: Gives the stamps in nanoseconds; None = ROS time of the client.
    """

    PERIOD_S = 0.1

    def __init__(self, client, topic, *, brightness=128, reliability='best_effort', clock=None):
        from sensor_msgs.msg import Image

        from edge_vlm_ros.nodes import qos

        self.is_on = True
        self.stamps = []
        self._client = client
        self._brightness = brightness
        self._clock = clock or (lambda: client.node.get_clock().now().nanoseconds)
        self._publisher = client.node.create_publisher(
            Image, topic, qos.camera(reliability, 5), event_callbacks=qos.no_publisher_events()
        )
        client.node.create_timer(self.PERIOD_S, self._show)

    def set_clock(self, clock):
        """Take the stamps from another clock from now on."""
        self._clock = clock

    def show(self, brightness):
        """Send images of another brightness from now on."""
        self._brightness = brightness

    def _show(self):
        if self.is_on:
            self.stamps.append(self._clock())
            image = self._client.grey(self._brightness, self.stamps[-1], 'lens_optical_frame')
            self._publisher.publish(image)
