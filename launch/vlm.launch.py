"""Start the vlm node: `ros2 launch edge_vlm_ros vlm.launch.py chip:=cpu`, `web:=true` for a page.

`--show-args` lists the arguments. Parameters come, later ones winning, from config/vlm.yaml, from
the chip's file in config/, from `params_file`, and from the arguments that are not empty.

Runs on Humble and later: only what its launch has is used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from edge_vlm_ros import cyclonedds
from edge_vlm_ros.core import launchable_chips
from edge_vlm_ros.fastdds import PROFILE_NAME, is_profile_chosen, variables_to_set
from launch import LaunchDescription

if TYPE_CHECKING:
    from collections.abc import Callable

    from launch import LaunchContext


RESPAWN_DELAY_S = 5.0


def arguments() -> list[DeclareLaunchArgument]:
    """Return the launch arguments."""
    return [
        DeclareLaunchArgument(
            'chip',
            default_value='cpu',
            choices=[*launchable_chips()],
            description='What runs the model.',
        ),
        DeclareLaunchArgument(
            'model',
            default_value='',
            description="Model: a name of the catalogue or a path; empty: the chip's default.",
        ),
        DeclareLaunchArgument(
            'servers',
            default_value='',
            description=(
                'For chip:=remote: OpenAI-compatible servers with commas between them '
                '(http://gpu-box:8000/v1), the parameter remote.servers. Images leave this robot.'
            ),
        ),
        DeclareLaunchArgument(
            'fallback_chip',
            default_value='',
            description=(
                'For chip:=remote: what answers where no server does, the parameter '
                'remote.fallback_chip; empty: what the parameter files say.'
            ),
        ),
        DeclareLaunchArgument(
            'cameras',
            default_value='',
            description=(
                'Camera names, with commas between them (front,rear): the parameter camera_names; '
                'empty: one, camera.'
            ),
        ),
        DeclareLaunchArgument(
            'image_topic',
            default_value='',
            description=(
                'Topic of the first camera; empty: image_raw for one camera, <name>/image_raw for '
                'several. Other cameras: cameras.<name>.topic in a params_file.'
            ),
        ),
        DeclareLaunchArgument(
            'ahead',
            default_value='',
            choices=['', 'off', 'encode', 'prefill'],
            description=(
                'What is made ready while nobody asks (parameter ahead_mode); empty: what the '
                'parameter files say.'
            ),
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value='',
            description="YAML file of parameters that win over the package's; empty: none.",
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node, such as robot1.'
        ),
        DeclareLaunchArgument(
            'device_ids',
            default_value='',
            description='Chip numbers with commas between them (0,1); empty: the first one.',
        ),
        DeclareLaunchArgument(
            'autostart',
            default_value='true',
            choices=['true', 'false'],
            description='Configure and activate at start; a failed start then ends the node.',
        ),
        DeclareLaunchArgument(
            'respawn',
            default_value='false',
            choices=['true', 'false'],
            description=(
                'Start the node again, 5 s later, whenever it has ended; also where its set-up is '
                'wrong and a start fails for good.'
            ),
        ),
        DeclareLaunchArgument(
            'web',
            default_value='false',
            choices=['true', 'false'],
            description=(
                'Serve a page beside the node: cameras, questions, answers with the frames they '
                'used. Its address, with a token, is printed.'
            ),
        ),
        DeclareLaunchArgument(
            'web_host',
            default_value='',
            description=(
                'Address that the page is served at, the parameter web.host; 0.0.0.0: for the '
                'whole network; empty: what params_file says, else this machine alone.'
            ),
        ),
        DeclareLaunchArgument(
            'web_port',
            default_value='',
            description='Its port, the parameter web.port; empty: what params_file says, or 8080.',
        ),
        DeclareLaunchArgument(
            'web_token_file',
            default_value='',
            description=(
                'File with the token that the page wants, the parameter web.token_file; empty: '
                'what params_file says, else one is made up and printed.'
            ),
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='false',
            choices=['true', 'false'],
            description='Take the time from /clock (a simulator, ros2 bag play --clock).',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Least serious messages that are logged.',
        ),
    ]


def config_folder() -> Path:
    """Return where the package's parameter files are."""
    return Path(get_package_share_directory('edge_vlm_ros')) / 'config'


def shared_memory_profile() -> list[SetEnvironmentVariable]:
    """Return actions that set the Fast DDS profile for large images.

    Nothing where the user has set one already.
    """
    if is_profile_chosen():
        return []
    profile = config_folder() / PROFILE_NAME
    return [SetEnvironmentVariable(name, str(profile)) for name in variables_to_set()]


def receive_buffers() -> list[SetEnvironmentVariable]:
    """Return the action that has Cyclone DDS take large images; none where the user chose."""
    if cyclonedds.chosen_profile():
        return []
    uri = cyclonedds.uri_of(config_folder() / cyclonedds.PROFILE_NAME)
    return [SetEnvironmentVariable(cyclonedds.PROFILE_VARIABLE, uri)]


def vlm_node(context: LaunchContext) -> list[Node]:
    """Return the node, once the arguments have values."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    config = config_folder()
    of_chip = config / f'{value("chip")}.yaml'
    parameters: list[Any] = [str(config / 'vlm.yaml')]
    if of_chip.is_file():  # a chip of another package has none here
        parameters.append(str(of_chip))
    if value('params_file'):
        parameters.append(params_file(value('params_file')))
    parameters.append(overrides(value))
    node = Node(
        package='edge_vlm_ros',
        executable='vlm_node',
        name='vlm',
        namespace=value('namespace'),
        output='screen',
        respawn=value('respawn') == 'true',
        respawn_delay=RESPAWN_DELAY_S,
        parameters=parameters,
        arguments=['--ros-args', '--log-level', value('log_level')],
    )
    return [node]


def web_page(context: LaunchContext) -> list[Node]:
    """Return the process that serves the page, if one is wanted."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    if value('web') != 'true':
        return []
    parameters: list[Any] = [params_file(value('params_file'))] if value('params_file') else []
    parameters.append(web_overrides(value))
    page = Node(
        package='edge_vlm_ros',
        executable='web',
        name='vlm_web',
        namespace=value('namespace'),
        output='screen',
        respawn=value('respawn') == 'true',
        respawn_delay=RESPAWN_DELAY_S,
        parameters=parameters,
        arguments=['--ros-args', '--log-level', value('log_level')],
    )
    return [page]


def web_overrides(value: Callable[[str], str]) -> dict[str, Any]:
    """Return the page's parameters that launch arguments set; empty arguments set nothing.

    Args:
        value: Gives an argument's text by its name.

    Raises:
        RuntimeError: `web_port` is no number.
    """
    chosen: dict[str, Any] = {'use_sim_time': value('use_sim_time') == 'true'}
    if value('web_host'):
        chosen['web.host'] = value('web_host')
    if value('web_port'):
        if not value('web_port').isdecimal():
            raise RuntimeError(f'web_port:={value("web_port")}: a number is wanted, such as 8080')
        chosen['web.port'] = int(value('web_port'))
    if value('web_token_file'):
        chosen['web.token_file'] = str(Path(value('web_token_file')).expanduser().resolve())
    return chosen


def params_file(text: str) -> str:
    """Return the path of the user's parameter file.

    Raises:
        RuntimeError: There is none; launch itself would start the node without it.
    """
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        what = 'is no file' if path.exists() else 'does not exist'
        raise RuntimeError(f'params_file:={text}: {path} {what}')
    return str(path)


def device_ids(text: str) -> list[int]:
    """Return the numbers of an argument.

    Raises:
        RuntimeError: They are none.
    """
    parts = [part.strip() for part in text.split(',')]
    if not all(part.isdecimal() for part in parts):
        raise RuntimeError(
            f'device_ids:={text}: chip numbers with commas between them are wanted, such as 0,1'
        )
    return [int(part) for part in parts]


def overrides(value: Callable[[str], str]) -> dict[str, Any]:
    """Return the parameters that launch arguments set; empty arguments set nothing.

    Args:
        value: Gives an argument's text by its name.
    """
    chosen: dict[str, Any] = {
        'chip': value('chip'),
        'autostart': value('autostart') == 'true',
        'use_sim_time': value('use_sim_time') == 'true',
    }
    if value('model'):
        chosen['model'] = value('model')
    if value('ahead'):
        chosen['ahead_mode'] = value('ahead')
    servers = [url.strip() for url in value('servers').split(',') if url.strip()]
    if servers:
        chosen['remote.servers'] = servers
    if value('fallback_chip'):
        chosen['remote.fallback_chip'] = value('fallback_chip')
    if value('device_ids'):
        chosen['device_ids'] = device_ids(value('device_ids'))
    cameras = [name.strip() for name in value('cameras').split(',') if name.strip()]
    if cameras:
        chosen['camera_names'] = cameras
    if value('image_topic'):
        first = cameras[0] if cameras else 'camera'
        chosen['cameras.' + first + '.topic'] = value('image_topic')
    return chosen


def generate_launch_description() -> LaunchDescription:
    """Describe what `ros2 launch` starts."""
    return LaunchDescription(
        [
            *arguments(),
            *shared_memory_profile(),
            *receive_buffers(),
            OpaqueFunction(function=vlm_node),
            OpaqueFunction(function=web_page),
        ]
    )
