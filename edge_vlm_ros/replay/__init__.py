"""Recordings played to watches and questions, without ROS, and how well those did."""

from edge_vlm_ros.replay.files import read_questions, read_values, watches_of
from edge_vlm_ros.replay.labels import read_labels
from edge_vlm_ros.replay.player import Player, ReplaySettings
from edge_vlm_ros.replay.recording import open_recording
from edge_vlm_ros.replay.records import Played
from edge_vlm_ros.replay.report import as_text, report_of, worse_than

__all__ = [
    'Played',
    'Player',
    'ReplaySettings',
    'as_text',
    'open_recording',
    'read_labels',
    'read_questions',
    'read_values',
    'report_of',
    'watches_of',
    'worse_than',
]
