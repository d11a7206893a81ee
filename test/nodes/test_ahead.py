"""Work ahead on a plain node: its faults end nothing, its end is clean, its price is told."""

from __future__ import annotations

import warnings

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from edge_vlm_ros.msg import Hint  # noqa: E402
from edge_vlm_ros.srv import Ask  # noqa: E402
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from support.clock import ManualClock  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    FrameSource,
    NotReadyError,
    RawImage,
    Readiness,
    SteadyClock,
    StoredFrame,
)
from edge_vlm_ros.nodes import diagnostics  # noqa: E402
from edge_vlm_ros.nodes.admission import Admission, admit  # noqa: E402
from edge_vlm_ros.nodes.ahead import Ahead  # noqa: E402
from edge_vlm_ros.nodes.ahead_parameters import AheadSettings  # noqa: E402
from edge_vlm_ros.nodes.cameras import time_of  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.executor_inbox import ExecutorInbox  # noqa: E402
from edge_vlm_ros.nodes.request_parameters import RequestDefaults  # noqa: E402
from edge_vlm_ros.serving.ahead import AheadReport  # noqa: E402
from edge_vlm_ros.vision import FrameBuffer  # noqa: E402

DEFAULTS = RequestDefaults(
    max_frames=8,
    max_age_s=0.0,
    frame_wait_s=1.0,
    timeout_s=10.0,
    max_tokens=50,
    system_prompt='',
    max_repeats=32,
)


class Feed:
    """A camera with one picture."""

    def __init__(self, now_ns):
        self.buffer = FrameBuffer(max_frames=10, max_seconds=10, max_bytes=10**6)
        image = RawImage('mono8', 8, 8, 8, bytes(64))
        self.newest = StoredFrame(FrameSource('front'), now_ns, image, now_ns, now_ns)


class Backend:
    """Keeps wishes; raises what it is told to."""

    def __init__(self):
        self.wishes, self.error = [], None

    def want_prefix(self, prefix):
        if self.error is not None:
            raise self.error
        self.wishes.append(prefix)

    def offer_frames(self, frames, shown_as=None):
        pass

    def listen_ahead(self, on_ahead):
        self.report = on_ahead


class Bench:
    """A plain node that works ahead, spun by the test."""

    def __init__(self, domain):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('plain', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        group = ReentrantCallbackGroup()
        self.time = time_of(self.node, SteadyClock())
        self.backend = Backend()
        self.feeds = {'front': Feed(self.time.now().steady_ns)}
        self.ahead = Ahead(
            self.node,
            AheadSettings(mode='prefill', watches=(('front',),)),
            self.feeds,
            self.backend,
            lambda: None,
            time=self.time,
            inbox=ExecutorInbox(self.node, group),
            callback_group=group,
            defaults=lambda: DEFAULTS,
        )

    def until(self, condition):
        for _ in range(1000):
            if condition():
                return
            self.executor.spin_once(0.02)
        pytest.fail('it did not come')

    def admitted(self):
        facts = RequestFacts('r', '', self.time.now())
        admitted = admit(Ask.Request(question='Eh?'), facts, DEFAULTS)
        return Admission(self.feeds).choose(admitted, now=self.time.now())

    def close(self):
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()


@pytest.fixture
def bench(ros_domain):
    with warnings.catch_warnings():
        # The message generator, imported with the first message, imports old modules.
        warnings.simplefilter('ignore', DeprecationWarning)
        bench = Bench(ros_domain)
    yield bench
    bench.close()


def values(bench):
    status = diagnostics.ahead_status('/plain', 'cpu 0', bench.ahead.facts())
    return status, {pair.key: pair.value for pair in status.values}


def test_the_timer_looks_and_tells(bench):
    bench.until(lambda: bench.backend.wishes)
    assert bench.backend.wishes[-1].frames == (bench.feeds['front'].newest,)


def test_a_fault_is_told_and_ends_no_question(bench):
    bench.backend.error = RuntimeError('the wish fell over')
    bench.ahead.check()
    status, told = values(bench)
    assert told['failures'] == '1'
    assert told['problem'] == 'RuntimeError: the wish fell over'
    assert status.message == told['problem']
    bench.ahead.policy.choose = None  # whatever it is that breaks
    admitted = bench.admitted()
    assert bench.ahead.choose(admitted, bench.time.now(), has_turns=False) is admitted
    assert values(bench)[1]['failures'] == '2'


def test_a_backend_that_is_closed_is_no_fault(bench):
    bench.backend.error = NotReadyError('closed')
    bench.ahead.check()
    assert values(bench)[1]['failures'] == '0'


def test_reports_come_on_the_executors_thread_and_none_after_the_end(bench):
    bench.backend.report(AheadReport(tokens=7))
    assert bench.ahead.facts().tokens == 0
    bench.until(lambda: bench.ahead.facts().tokens == 7)
    bench.until(lambda: bench.backend.wishes)
    bench.ahead.close()
    assert bench.backend.wishes[-1] is None
    bench.backend.report(AheadReport(tokens=9))
    bench.executor.spin_once(0.1)
    bench.executor.spin_once(0.1)
    assert bench.ahead.facts().tokens == 7
    told = len(bench.backend.wishes)
    for _ in range(5):
        bench.executor.spin_once(0.1)
    assert len(bench.backend.wishes) == told


def test_the_chips_share_is_that_of_the_last_minute_and_a_new_process_begins_at_nothing(bench):
    clock = bench.ahead._time.steady = ManualClock()
    for busy_s in (0.0, 0.25, 0.5, 0.0):
        bench.ahead.policy.report = AheadReport(busy_s=busy_s)
        bench.ahead.measure()
        clock.advance(1.0)
    assert bench.ahead.facts().chip_share == pytest.approx(0.5 / 3)


def test_a_hint_is_heard(bench):
    publisher = bench.node.create_publisher(Hint, 'plain/hint', 10)
    bench.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(Hint())
    bench.until(lambda: bench.backend.wishes and bench.backend.wishes[-1].is_urgent)
    assert values(bench)[1]['hints'] == '1'


def test_diagnostics_tell_hits_from_misses(bench):
    bench.ahead.policy.counts.questions.update(
        {Readiness.PREFIX: 3, Readiness.APPENDED: 2, Readiness.ENCODED: 1, Readiness.NONE: 4}
    )
    status, told = values(bench)
    assert (told['hits'], told['misses']) == ('6', '4')
    assert (told['prefix'], told['appended'], told['encoded']) == ('3', '2', '1')
    assert status.name == '/plain: ahead'
    assert (told['mode'], told['ready']) == ('prefill', '')
