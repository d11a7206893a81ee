"""What is advised where images are lost."""

from __future__ import annotations

import os
import socket
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from edge_vlm_ros.fastdds import PROFILE_VARIABLES
from edge_vlm_ros.nodes import middleware
from edge_vlm_ros.nodes.middleware import Losses

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = str(ROOT / 'config' / 'fastdds_shm.xml')
MB = 10**6


@pytest.mark.parametrize(
    ('losses', 'said', 'unsaid'),
    [
        (Losses('rmw_fastrtps_cpp'), '512 KB', 'Cyclone'),
        (Losses('rmw_fastrtps_dynamic_cpp', largest_bytes=MB), '512 KB', 'sysctl'),
        (Losses('rmw_fastrtps_cpp', largest_bytes=MB, profile=SHIPPED), '512 KB', 'sysctl'),
        (
            Losses('rmw_fastrtps_cpp', largest_bytes=MB, profile='/my/own.xml'),
            '/my/own.xml',
            '512',
        ),
        (Losses('rmw_fastrtps_cpp', largest_bytes=25 * MB), '25.0 MB do not fit', '512 KB'),
        (Losses('rmw_fastrtps_cpp', largest_bytes=300_000), 'too busy', '512 KB'),
        (Losses('rmw_fastrtps_cpp', is_raw=False), 'too busy', '512 KB'),
        (Losses('rmw_cyclonedds_cpp', largest_bytes=6 * MB), 'net.core.rmem_max', 'Fast DDS'),
        (Losses('rmw_cyclonedds_cpp'), 'config/cyclonedds.xml', 'Fast DDS'),
        (Losses('rmw_cyclonedds_cpp', largest_bytes=50_000), 'too busy', 'rmem_max'),
        (Losses('rmw_cyclonedds_cpp', is_raw=False, udp_drops=12), '12 datagrams', 'Fast DDS'),
        (Losses('rmw_zenoh_cpp', largest_bytes=6 * MB), 'rmw_zenoh_cpp', '512 KB'),
        (Losses(), 'unknown', '512 KB'),
    ],
)
def test_each_middleware_has_its_own_advice_and_an_unknown_one_is_called_so(losses, said, unsaid):
    assert said in losses.advice
    assert unsaid not in losses.advice


def test_the_profile_is_the_one_that_the_environment_names(monkeypatch):
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, '')
    assert middleware.fast_dds_profile() == ''
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/old.xml')
    assert middleware.fast_dds_profile() == '/old.xml'


def test_the_shipped_profile_holds_what_is_said_of_it():
    sizes = [e.text for e in ET.parse(SHIPPED).iter() if e.tag.endswith('segment_size')]
    assert sizes == [str(middleware.PROFILE_SEGMENT_BYTES)]


def test_the_profile_of_cyclone_dds_asks_for_no_more_than_the_kernel_gives():
    """A `min` above the kernel's limit ends the process."""
    root = ET.parse(ROOT / 'config' / 'cyclonedds.xml').getroot()
    (size,) = [e for e in root.iter() if e.tag.endswith('SocketReceiveBufferSize')]
    assert size.attrib == {'min': 'default', 'max': '16MB'}


HEAD = (
    '  sl  local_address rem_address  st tx_queue rx_queue tr tm->when uid timeout inode ... drops'
)
LINE = ' 9: 00000000:A53E 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 {} 2 0000 {}'
TABLE = '\n'.join([HEAD, LINE.format(11, 40), LINE.format(22, 7)])


def test_only_the_drops_of_the_process_itself_count(tmp_path):
    (tmp_path / 'fd').mkdir()
    (tmp_path / 'net').mkdir()
    (tmp_path / 'net' / 'udp').write_text(TABLE)
    (tmp_path / 'net' / 'udp6').write_text(TABLE.replace(' 11 ', ' 33 '))
    for number, target in enumerate(('socket:[11]', '/dev/null', 'socket:[33]')):
        (tmp_path / 'fd' / str(number)).symlink_to(target)
    assert middleware.count_udp_drops(tmp_path) == 80
    assert middleware.count_udp_drops(tmp_path / 'nowhere') == 0


@pytest.mark.skipif(not os.path.exists('/proc/self/net/udp'), reason='needs Linux')  # noqa: PTH110
def test_the_kernel_tells_what_it_drops():
    before = middleware.count_udp_drops()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.bind(('127.0.0.1', 0))
        for _ in range(50):
            sender.sendto(bytes(2000), receiver.getsockname())
        assert middleware.count_udp_drops() > before
