"""Recordings that the test makes up, and a model that says how bright the newest picture is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_vlm_ros.core import NS_PER_S, Answer, FinishReason, FrameSource, RawImage, StoredFrame
from edge_vlm_ros.core.answer import Timings
from edge_vlm_ros.replay.arrivals import Arrival
from edge_vlm_ros.vision import decode_image

BRIGHT = 150
"""From here on a picture is an event."""


class Made:
    """A recording of pictures of one brightness each.

    Args:
        shown: (seconds, brightness) of each frame; of several cameras also the camera's name.
        late_s: How much later than its stamp each comes.
    """

    name = 'made up'

    def __init__(self, shown, late_s=0.0):
        self.shown = [(*each, 'front')[:3] for each in shown]
        self.late_ns = round(late_s * NS_PER_S)
        self.cameras = tuple(dict.fromkeys(name for *_, name in self.shown))

    def arrivals(self):
        for second, brightness, name in self.shown:
            stamp_ns = round(second * NS_PER_S)
            data = np.full((36, 64, 3), brightness, np.uint8).tobytes()
            image = RawImage('rgb8', 64, 36, 192, data)
            time_ns = stamp_ns + self.late_ns
            yield Arrival(time_ns, StoredFrame(FrameSource(name), stamp_ns, image, time_ns))


def every(period_s, *spans):
    """Return frames: (from, to, brightness) each, so many seconds apart."""
    return [
        (round(second, 3), brightness)
        for start, stop, brightness in spans
        for second in np.arange(start, stop - 1e-6, period_s)
    ]


class Model:
    """Answers at once; says that it took as long as it is told."""

    def __init__(self, took_s=0.1, probability=0.9):
        self.took_s = took_s
        self.probability = probability
        self.questions = []

    def __call__(self, question):
        self.questions.append(question)
        newest = decode_image(question.frames[-1].image)
        choice = 'yes' if newest.mean() >= BRIGHT else 'no'
        return Answer(
            question.request_id,
            choice,
            FinishReason.STOP,
            timings=Timings(total_s=self.took_s),
            model='mean',
            chip='none',
            choice=choice if question.choices else '',
            choice_probability=self.probability,
        )


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def write_bag(tmp_path):
    """Write a bag of ROS 2 as a recorder does; return its folder."""

    def write(plugin, frames, topic='/front/image_raw', *, compressed=False, offset_s=0.0):
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS2_HUMBLE)
        types = store.types
        kind = f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'
        folder = tmp_path / f'{plugin.lower()}-{topic.replace("/", "_")}'
        start_ns = 1_700_000_000 * NS_PER_S
        with Writer(folder, version=9, storage_plugin=StoragePlugin[plugin]) as writer:
            other = writer.add_connection('/chatter', 'std_msgs/msg/String', typestore=store)
            word = types['std_msgs/msg/String'](data='not an image')
            writer.write(other, start_ns, store.serialize_cdr(word, 'std_msgs/msg/String'))
            connection = writer.add_connection(topic, kind, typestore=store)
            for second, brightness in frames:
                arrived_ns = start_ns + round(second * NS_PER_S)
                stamp_ns = arrived_ns - 30_000_000 + round(offset_s * NS_PER_S)
                stamp = types['builtin_interfaces/msg/Time'](
                    sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S
                )
                header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='lens')
                pixels = np.full((48, 64, 3), brightness, np.uint8)
                if compressed:
                    data = cv2.imencode('.jpg', pixels)[1].ravel()
                    message = types[kind](header=header, format='jpeg', data=data)
                else:
                    message = types[kind](
                        header=header, height=48, width=64, encoding='rgb8', is_bigendian=0,
                        step=192, data=pixels.ravel(),
                    )  # fmt: skip
                writer.write(connection, arrived_ns, store.serialize_cdr(message, kind))
        return folder

    return write
