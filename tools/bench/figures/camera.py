"""The camera side at 1080p 30 Hz: frames kept; CPU and memory against a subscriber that stores.

The node and the plain subscriber listen to the same camera at the same time, each in its own
process, with the same QoS, the same malloc settings and room for as many frames.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tools.bench.figure import Figure
from tools.bench.timing import Pairs

WIDTH, HEIGHT, FPS = 1920, 1080, 30
WARM_UP_S = 4.0
WINDOW_S = 3.0
WINDOWS = 7
PLAIN = 'a subscriber that only stores the message'


def measure() -> Iterator[Figure]:
    """Measure the processor time of both over the same windows, then count the frames."""
    from tools.bench.ros.client import Bench, ros_of_its_own
    from tools.bench.ros.usage import cpu_s, resident_mb

    values: list[float] = []
    baselines: list[float] = []
    with ros_of_its_own(), Bench() as bench:
        plain = bench.start('tools.bench.ros.bench_node', 'storing')
        node = bench.start_node(chip='scripted')
        size = [f'--width={WIDTH}', f'--height={HEIGHT}', f'--fps={FPS}', '--listeners=2']
        camera = bench.start('tools.bench.ros.bench_node', 'camera', *size)
        bench.connect()
        time.sleep(WARM_UP_S)
        for _ in range(WINDOWS):
            before = cpu_s(node.pid), cpu_s(plain.pid)
            time.sleep(WINDOW_S)
            values.append(cpu_s(node.pid) - before[0])
            baselines.append(cpu_s(plain.pid) - before[1])
        memory, plain_memory = resident_mb(node.pid), resident_mb(plain.pid)
        bench.children.running.remove(camera)
        camera.stop()
        received = int(bench.next_diagnostics()['/vlm: camera camera']['received'])
        bench.children.running.remove(plain)
        plain.stop()
        sent, stored = (int(child.last_lines(1)[0].split()[1]) for child in (camera, plain))
    pairs = Pairs(tuple(values), tuple(baselines))
    percent = 100 / WINDOW_S
    yield Figure(
        'camera_1080p_cpu',
        pairs.value_s * percent,
        '% of a core',
        pairs.baseline_s * percent,
        PLAIN,
        pairs.cost,
        'ratio <= 1.2',
    )
    yield Figure(
        'camera_1080p_frames_kept',
        100 * received / sent,
        f'% of {sent}',
        100 * stored / sent,
        PLAIN,
        received / max(stored, 1),
        'value >= 100',
    )
    yield Figure(
        'node_memory_with_1080p_camera',
        memory,
        'MB',
        plain_memory,
        f'{PLAIN}, as many of them',
        memory / plain_memory,
        'ratio <= 1.1',
    )
