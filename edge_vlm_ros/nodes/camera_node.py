"""The `camera` node: plays a video, an image, a folder of images or a webcam as a ROS camera."""

from __future__ import annotations

import threading
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image, TimeReference
from std_msgs.msg import Header

from edge_vlm_ros.core import NS_PER_S, BadRequestError, EdgeVlmError
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.conversions import time_to_ros
from edge_vlm_ros.nodes.declaring import value_of
from edge_vlm_ros.nodes.parameter_sets import ParameterSets
from edge_vlm_ros.nodes.qos_overrides import create_publisher
from edge_vlm_ros.nodes.spinning import end_wait
from edge_vlm_ros.vision import open_media

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.qos import QoSProfile

    from edge_vlm_ros.core import RgbImage
    from edge_vlm_ros.nodes.declaring import ParameterTable
    from edge_vlm_ros.vision import MediaReader

CHANNELS = {'rgb8': 3, 'bgr8': 3, 'mono8': 1}
TRANSPORTS = ('raw', 'compressed', 'both')
FROM_RGB = {'bgr8': cv2.COLOR_RGB2BGR, 'mono8': cv2.COLOR_RGB2GRAY}
SUBSCRIBER_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """What the camera node plays, and how.

    Attributes:
        source: Path, or a webcam's index.
        fps: Frames a second; 0 = the source's own.
        loop: Start over at the end.
        encoding: Of the raw images: 'rgb8', 'bgr8' or 'mono8'.
        frame_id: The optical frame.
        transport: 'raw', 'compressed' or 'both'.
        width: Pixels; 0 = the source's own, or as `height` asks with the aspect kept.
        height: Likewise.
        jpeg_quality: 1 to 100.
        reliability: 'best_effort' or 'reliable'.
        wait_for_subscriber: Play from when somebody subscribes.
    """

    source: str
    fps: float
    loop: bool
    encoding: str
    frame_id: str
    transport: str
    width: int
    height: int
    jpeg_quality: int
    reliability: str
    wait_for_subscriber: bool


class CameraNode(ParameterSets):
    """Publishes the frames of one source, each at its time.

    The header's stamp is the ROS time at which the frame was due and sent. `~/media_time`
    (sensor_msgs/TimeReference) says for every stamp which moment of the source it shows, counted
    from its start, so that what is said about a frame can be compared with what is known of it.

    Frames are read, paced and published by one thread of the node's own, so that a slow decoder
    holds up no service; `close` ends it.

    Args:
        options: For `rclpy.node.Node`: namespace, parameter_overrides, context, ...

    Raises:
        SettingsError: A parameter was given what makes no sense.
        EdgeVlmError: The source cannot be opened.
    """

    _is_built = False

    def __init__(self, **options: Any) -> None:
        super().__init__('camera', **options)
        self.ended: Future[str] = Future()
        """Done when the source has ended; its result is '' or what went wrong."""

        declare_parameters(self.parameters)
        self._options = _read(self)
        profile = qos.camera(self._options.reliability, depth=5)
        transport = self._options.transport
        self._raw = self._compressed = None
        if transport != 'compressed':
            self._raw = self._publisher(Image, 'image_raw', profile)
        if transport != 'raw':
            self._compressed = self._publisher(CompressedImage, 'image_raw/compressed', profile)
        self._media_time = self._publisher(TimeReference, '~/media_time', qos.reliable(100))
        self.parameters.warn_of_unknown()
        self._media = _open(self._options)
        self._painter = _Painter(self._options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, name='play', daemon=True)
        self.get_logger().info(f'playing {self._media.name} at {self._fps():.3g} frames a second')
        self._thread.start()
        self._is_built = True

    def _publisher(self, kind: type[Any], topic: str, profile: QoSProfile) -> Publisher[Any]:
        return create_publisher(self, self.parameters, kind, topic, profile)

    def close(self) -> None:
        """Stop playing and let the source go; safe to call twice."""
        self._stop.set()
        self._thread.join()
        self._media.close()

    def destroy_node(self) -> None:
        """Stop playing and leave the ROS graph."""
        if self._is_built:  # Else rclpy tears down what a wrong parameter has kept from being.
            self.close()
        super().destroy_node()

    def _fps(self) -> float:
        return self._options.fps or self._media.fps

    def _play(self) -> None:
        problem = ''
        try:
            self._wait_for_subscriber()
            self._play_once()
            while self._options.loop and not self._stop.is_set():
                self._play_once()
        except EdgeVlmError as error:
            problem = error.message
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the node's owner
            problem = f'{type(error).__name__}: {error}'
        self.ended.set_result(problem)
        if self.executor is not None:
            end_wait(self.executor)

    def _wait_for_subscriber(self) -> None:
        while self._options.wait_for_subscriber and not self._has_subscriber():
            if self._stop.wait(SUBSCRIBER_POLL_S):
                return

    def _has_subscriber(self) -> bool:
        publishers = (self._raw, self._compressed)
        return any(p is not None and p.get_subscription_count() > 0 for p in publishers)

    def _play_once(self) -> None:
        """Publish every frame of the source once, each when it is due."""
        # Times of the source are stretched so that its frames come at the rate asked for.
        stretch = self._media.fps / self._fps()
        period_s = 1 / self._fps()
        start_s = time.monotonic()
        time_s = 0.0
        for pixels, time_s in self._media:
            due_s = start_s + time_s * stretch
            late_s = time.monotonic() - due_s
            if late_s > period_s:
                start_s += late_s  # no burst after a halt: go on from now
            elif late_s < 0 and self._stop.wait(-late_s):
                return
            if self._stop.is_set():
                return
            self._publish(pixels, time_s)
        # The last frame stays as long as the others.
        self._stop.wait(max(0.0, start_s + time_s * stretch + period_s - time.monotonic()))

    def _publish(self, pixels: RgbImage, time_s: float) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._options.frame_id)
        sized = self._painter.resize(pixels)
        if self._raw is not None and self._raw.get_subscription_count():
            self._raw.publish(self._painter.raw(sized, header))
        if self._compressed is not None and self._compressed.get_subscription_count():
            self._compressed.publish(self._painter.compressed(sized, header))
        self._media_time.publish(
            TimeReference(
                header=header,
                time_ref=time_to_ros(round(time_s * NS_PER_S)),
                source=self._options.source,
            )
        )


class _Painter:
    """Makes messages of frames; one raw message is used over and over."""

    def __init__(self, options: CameraOptions) -> None:
        self._options = options
        self._message = Image(encoding=options.encoding)

    def resize(self, pixels: RgbImage) -> RgbImage:
        height, width = pixels.shape[:2]
        size = _size(self._options, width, height)
        if size == (width, height):
            return pixels
        is_smaller = size[0] < width
        method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(pixels, size, interpolation=method), np.uint8)

    def raw(self, pixels: RgbImage, header: Header) -> Image:
        message, encoding = self._message, self._options.encoding
        height, width = pixels.shape[:2]
        shape = (height, width, 3) if CHANNELS[encoding] == 3 else (height, width)
        nbytes = height * width * CHANNELS[encoding]
        if len(message.data) != nbytes:
            # Only array.array is taken by a message as it is; see also the vlm node's camera side.
            message.data = array('B', bytes(nbytes))
            message.width, message.height = width, height
            message.step = width * CHANNELS[encoding]
        message.header = header
        target = np.frombuffer(message.data, np.uint8).reshape(shape)
        if encoding in FROM_RGB:
            cv2.cvtColor(pixels, FROM_RGB[encoding], dst=target)
        else:
            np.copyto(target, pixels)
        return message

    def compressed(self, pixels: RgbImage, header: Header) -> CompressedImage:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._options.jpeg_quality]
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
        return CompressedImage(header=header, format='jpeg', data=array('B', jpeg.tobytes()))


def _size(options: CameraOptions, width: int, height: int) -> tuple[int, int]:
    """Return width and height to publish; one alone keeps the aspect."""
    if options.width and options.height:
        return options.width, options.height
    if options.width:
        return options.width, max(1, round(height * options.width / width))
    if options.height:
        return max(1, round(width * options.height / height)), options.height
    return width, height


def _open(options: CameraOptions) -> MediaReader:
    if not options.source:
        raise BadRequestError(
            'nothing to play: set the parameter `source` to a video, an image, a folder of images '
            'or the index of a webcam'
        )
    is_webcam = options.source.isdecimal() and not Path(options.source).exists()
    return open_media(options.source, fps=options.fps if is_webcam else 0.0)


def declare_parameters(table: ParameterTable) -> None:
    """Declare every parameter of the camera node but those of QoS; each is fixed while it runs.

    Raises:
        SettingsError: What was given for one at the start does not fit.
    """

    def declare(name: str, value: Any, description: str, **limits: Any) -> None:
        table.declare(name, value, description, read_only=True, **limits)

    declare('source', '', 'Video file, image file, folder of images, or the index of a webcam.')
    declare(
        'fps',
        0.0,
        "Frames a second; 0: the source's own (2 for a folder of images).",
        low=0.0,
        high=1000.0,
    )
    declare('loop', value=True, description='Start over at the end; if not, the node ends there.')
    declare('encoding', 'rgb8', 'Of the raw images.', choices=CHANNELS)
    declare('frame_id', '', 'Optical frame of the camera; empty: <node name>_optical_frame.')
    declare(
        'transport',
        'raw',
        'Raw images on image_raw, JPEG on image_raw/compressed, or both.',
        choices=TRANSPORTS,
    )
    for side, other in (('width', 'height'), ('height', 'width')):
        meaning = f"px; 0: the source's own, or what keeps the aspect beside `{other}`."
        declare(side, 0, meaning, low=0, high=20_000)
    declare('jpeg_quality', 90, 'Of compressed images.', low=1, high=100)
    declare(
        'qos.reliability',
        'reliable',
        'A reliable publisher serves every subscription, a best_effort one only best_effort ones.',
        choices=qos.RELIABILITIES,
    )
    declare(
        'wait_for_subscriber',
        value=False,
        description='Play from when somebody subscribes to the images.',
    )


def _read(node: Node) -> CameraOptions:
    def value(name: str) -> Any:
        return value_of(node, name)

    return CameraOptions(
        source=value('source'),
        fps=value('fps'),
        loop=value('loop'),
        encoding=value('encoding'),
        frame_id=value('frame_id') or f'{node.get_name()}_optical_frame',
        transport=value('transport'),
        width=value('width'),
        height=value('height'),
        jpeg_quality=value('jpeg_quality'),
        reliability=value('qos.reliability'),
        wait_for_subscriber=value('wait_for_subscriber'),
    )
