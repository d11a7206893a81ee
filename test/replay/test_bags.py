"""Bags of ROS 2, without ROS: written by the library, read by us."""

from __future__ import annotations

import pytest
from replay.conftest import Model, every

from edge_vlm_ros.core import BadImageError, BadRequestError, EdgeVlmError
from edge_vlm_ros.replay import Player, open_recording, report_of
from edge_vlm_ros.replay.labels import Span
from edge_vlm_ros.vision import decode_image
from edge_vlm_ros.watch import WatchSpec

pytest.importorskip('rosbags')
SHOWN = every(0.2, (0, 3, 90), (3, 6, 200), (6, 9, 90))


@pytest.mark.parametrize('plugin', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('compressed', [False, True])
def test_a_bag_of_either_kind_gives_its_frames_and_its_events(write_bag, plugin, compressed):
    topic = '/front/image_raw/compressed' if compressed else '/front/image_raw'
    bag = open_recording(str(write_bag(plugin, SHOWN, topic, compressed=compressed)), {})
    assert bag.cameras == ('front',)
    arrivals = list(bag.arrivals())
    assert len(arrivals) == len(SHOWN)
    first = arrivals[0]
    assert first.time_ns == 0
    assert first.frame.stamp_ns == -30_000_000, 'taken before it came'
    assert (first.frame.source.topic, first.frame.source.frame_id) == (topic, 'lens')
    assert abs(decode_image(arrivals[20].frame.image).mean() - SHOWN[20][1]) < 3
    watch = WatchSpec('bright', 'Is it bright?', period_s=0.5, begin_looks=1, begin_of=1)
    played = Player(bag, Model(), [watch]).play()
    found = report_of(played, {'bright': [Span(3, 6)]})['watches']['bright']
    assert (found['hits'], found['false_alarms']) == (1, 0)


def test_a_bags_file_alone_names_its_folder(write_bag):
    folder = write_bag('MCAP', SHOWN[:3])
    (file,) = folder.glob('*.mcap')
    assert len(list(open_recording(str(file), {}).arrivals())) == 3
    (folder / 'metadata.yaml').unlink()
    with pytest.raises(BadRequestError, match=r'metadata\.yaml'):
        open_recording(str(file), {})


def test_cameras_may_be_named_and_a_topic_that_is_not_there_is_refused(write_bag):
    folder = str(write_bag('MCAP', SHOWN[:3]))
    bag = open_recording(folder, {'nose': '/front/image_raw'})
    assert bag.cameras == ('nose',)
    assert next(bag.arrivals()).frame.source.camera == 'nose'
    with pytest.raises(BadRequestError, match='it has /front/image_raw'):
        open_recording(folder, {'nose': '/chatter'})


def test_stamps_of_another_clock_count_as_their_arrival(write_bag):
    folder = write_bag('SQLITE3', SHOWN[:4], offset_s=-1e6)
    arrivals = open_recording(str(folder), {}).arrivals()
    assert all(frame.stamp_ns == time_ns for time_ns, frame in arrivals)


def test_a_damaged_bag_is_an_error_that_names_it(write_bag):
    folder = write_bag('MCAP', SHOWN[:4])
    (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: 9}')
    with pytest.raises(EdgeVlmError, match='cannot be read as a bag'):
        open_recording(str(folder), {})
    folder = write_bag('SQLITE3', SHOWN[:4], '/other')
    (file,) = folder.glob('*.db3')
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(BadImageError, match='cannot be read as a bag'):
        list(open_recording(str(folder), {}).arrivals())
