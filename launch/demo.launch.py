"""Start a camera that plays a file, and the vlm node: `ros2 launch edge_vlm_ros demo.launch.py`.

    ros2 launch edge_vlm_ros demo.launch.py source:=/path/to/video.mp4
    ros2 service call /ask edge_vlm_ros/srv/Ask "{question: 'What do you see?'}"

Takes the arguments of vlm.launch.py, too.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

import edge_vlm_ros
from launch import LaunchDescription


def shipped_clip() -> str:
    """Return the first clip that comes with the package; '' where none is there."""
    for folder in edge_vlm_ros.__path__:
        clips = sorted((Path(folder) / 'demo' / 'clips').glob('*.mp4'))
        if clips:
            return str(clips[0])
    return ''


def generate_launch_description() -> LaunchDescription:
    """Describe what `ros2 launch` starts."""
    launch = Path(get_package_share_directory('edge_vlm_ros')) / 'launch'
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'source',
                default_value=shipped_clip(),
                description='Video, image, folder of images, or the index of a webcam.',
            ),
            DeclareLaunchArgument(
                'fps',
                default_value='0.0',
                description="Frames a second of the camera; 0.0: the source's own.",
            ),
            # First: it sets the environment of every process that is started after it.
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(launch / 'vlm.launch.py'))),
            Node(
                package='edge_vlm_ros',
                executable='camera_node',
                name='camera',
                namespace=LaunchConfiguration('namespace'),
                output='screen',
                parameters=[
                    {
                        'source': ParameterValue(LaunchConfiguration('source'), value_type=str),
                        'fps': ParameterValue(LaunchConfiguration('fps'), value_type=float),
                    }
                ],
            ),
        ]
    )
