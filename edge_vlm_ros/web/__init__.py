"""The web page: live cameras, questions, answers with the frames they used. Knows no ROS.

The server (`server`, the only importer of aiohttp) serves a `Robot`: what that is, is another
room's business (`nodes` has one over ROS, `cli` one over files and a model). `guard` says who may
come in, `bounds` how much of anything there may be.
"""

from edge_vlm_ros.web.guard import Guard, is_loopback, new_token, read_token
from edge_vlm_ros.web.hub import Hub
from edge_vlm_ros.web.robot import (
    Camera,
    Diagnostics,
    Facts,
    News,
    Overheard,
    Part,
    Picture,
    Preset,
    Request,
    Robot,
    State,
    Watches,
    WatchEvent,
)

__all__ = [
    'Camera',
    'Diagnostics',
    'Facts',
    'Guard',
    'Hub',
    'News',
    'Overheard',
    'Part',
    'Picture',
    'Preset',
    'Request',
    'Robot',
    'State',
    'WatchEvent',
    'Watches',
    'is_loopback',
    'new_token',
    'read_token',
]
