"""What ROS costs: an answer over /ask against the same question through VlmPipeline.

The demo model answers about 640 x 480 frames of the shipped clip, in turn: once asked over the
service, with the camera's newest frame, in the node's model process; once asked in this process,
with a frame of the same clip. No frame is asked about twice, so none is cached. From the call to
the whole answer.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from tools.bench.figure import Figure
from tools.bench.timing import in_turn, seconds

ROUNDS = 25
QUESTION = 'Describe what you see.'
PAUSE_S = 0.15  # the camera sends the next frame meanwhile


def measure() -> Iterator[Figure]:
    """Ask both in turn."""
    import edge_vlm_ros.demo
    from edge_vlm_ros.core import FrameSource, Question, RawImage, RgbImage, StoredFrame
    from edge_vlm_ros.serving import VlmPipeline
    from edge_vlm_ros.vision import open_media
    from tools.bench.ros.client import Bench, as_parameters, ros_of_its_own

    clip = next(Path(edge_vlm_ros.demo.__file__).parent.glob('clips/*.mp4'))
    with open_media(clip) as media:
        images = [pixels for pixels, _ in itertools.islice(media, 0, None, 4)]

    def stored(image: RgbImage, number: int) -> StoredFrame:
        height, width, _ = image.shape
        raw = RawImage('rgb8', width, height, 3 * width, image.reshape(-1).data)
        return StoredFrame(FrameSource('bench'), number, raw)

    frames = (stored(image, number) for number, image in enumerate(itertools.cycle(images)))

    def over_ros() -> float:
        time.sleep(PAUSE_S)
        return seconds(lambda: bench.ask(QUESTION))

    def in_process() -> float:
        time.sleep(PAUSE_S)
        question = Question(QUESTION, frames=(next(frames),))
        return seconds(lambda: pipeline.ask(question).answer(60))

    with ros_of_its_own(), Bench() as bench:
        source = as_parameters({'source': str(clip)})
        bench.start('edge_vlm_ros.nodes.camera_main', *source)
        bench.start_node(chip='cpu', model='demo')
        bench.connect()
        with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
            pairs = in_turn(over_ros, in_process, rounds=ROUNDS, warm_up=3)
    yield Figure(
        'node_overhead',
        pairs.value_s * 1e3,
        'ms',
        pairs.baseline_s * 1e3,
        'VlmPipeline in one process',
        pairs.cost,
        'ratio <= 1.1',
    )
