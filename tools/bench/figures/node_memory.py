"""The node's own process in memory, after a question, against a bare rclpy lifecycle node.

The model lives in a process of its own and does not count; the frame buffer is nearly empty here
(`camera` measures beside a full one).
"""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench.figure import Figure


def measure() -> Iterator[Figure]:
    """Read the resident memory of both."""
    from tools.bench.ros.client import Bench, ros_of_its_own
    from tools.bench.ros.usage import resident_mb

    with ros_of_its_own(), Bench() as bench:
        bare = bench.start('tools.bench.ros.bench_node', 'bare')
        node = bench.start_node(chip='scripted')
        small = ['--width=64', '--height=48', '--fps=10']
        bench.start('tools.bench.ros.bench_node', 'camera', *small)
        bench.connect()
        bench.spin_until(
            lambda: bench.diagnostics.get('/vlm: camera camera', {}).get('received', '0') != '0'
        )
        bench.ask('What do you see?')
        buffered = float(bench.next_diagnostics()['/vlm: camera camera']['buffered_megabytes'])
        value, baseline = resident_mb(node.pid) - buffered, resident_mb(bare.pid)
    yield Figure(
        'node_memory',
        value,
        'MB',
        baseline,
        'a bare rclpy lifecycle node',
        value / baseline,
    )
