"""The parameters of servers: `remote.*`, for `chip: remote`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.core import EdgeVlmError, chip_names
from edge_vlm_ros.nodes.declaring import filled, value_of
from edge_vlm_ros.remote.addresses import read_servers
from edge_vlm_ros.remote.key import check_variable_name

if TYPE_CHECKING:
    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

REMOTE: Final = 'remote'
ORDERS: Final = ('remote_then_local', 'local_then_remote')


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Servers, and the chip beside them; as it stands here it is by default.

    Attributes:
        servers: Their addresses, the preferred one first.
        api_key_env: The environment variable that holds the key; '' = none.
        api_key_file: The file that holds it; '' = none.
        ca_file: Certificates to verify servers with; '' = the system's.
        first_token_s: A server has so long for its first word, seconds.
        max_images: Images in one prompt.
        max_side: Longer side of an image as it is sent, pixels.
        fallback_chip: Answers where no server does; '' = nobody.
        fallback_model: On that chip; '' = its default.
        order: Who is asked first.
        sure_from: Chip first: what is less probable is asked of a server, too.
    """

    servers: tuple[str, ...] = ()
    api_key_env: str = ''
    api_key_file: str = ''
    ca_file: str = ''
    first_token_s: float = 10.0
    max_images: int = 8
    max_side: int = 1024
    fallback_chip: str = ''
    fallback_model: str = ''
    order: str = ORDERS[0]
    sure_from: float = 0.0

    def options(self) -> dict[str, object]:
        """Return them as options of the chip `remote`."""
        options: dict[str, object] = {
            'servers': ','.join(self.servers),
            'api_key_env': self.api_key_env,
            'api_key_file': self.api_key_file,
            'ca_file': self.ca_file,
            'first_token_s': self.first_token_s,
            'max_images': self.max_images,
            'max_side': self.max_side,
        }
        if self.fallback_chip:
            options |= {
                'fallback_chip': self.fallback_chip,
                'fallback_model': self.fallback_model,
                'order': self.order,
                'sure_from': self.sure_from,
            }
        return options


def declare_remote(table: ParameterTable) -> None:
    """Declare the parameters."""
    default = RemoteSettings()
    table.declare(
        'remote.servers',
        [''],
        'With chip remote: addresses of OpenAI-compatible servers, the preferred one first, as '
        "['https://gpu-box:8000/v1']. Images and questions are sent there: they leave this robot.",
        read_only=True,
        check=_problem_of_servers,
    )
    _declare_trust(table, default)
    _declare_bounds(table, default)
    _declare_fallback(table, default)


def _declare_trust(table: ParameterTable, default: RemoteSettings) -> None:
    table.declare(
        'remote.api_key_env',
        default.api_key_env,
        'Name of the environment variable that holds the key of the servers; empty: none. Never '
        'the key itself: everyone on the ROS graph can read parameters.',
        read_only=True,
        check=_problem_of_key_name,
    )
    table.declare(
        'remote.api_key_file',
        default.api_key_file,
        'File whose first line is the key, instead; empty: none.',
        read_only=True,
    )
    table.declare(
        'remote.ca_file',
        default.ca_file,
        "Certificates (PEM) that https servers are verified with; empty: the system's own.",
        read_only=True,
    )


def _declare_bounds(table: ParameterTable, default: RemoteSettings) -> None:
    table.declare(
        'remote.first_token_s',
        default.first_token_s,
        "s; a server has so long for its first word, and half of what is left of the question's "
        'time where a fallback_chip waits; then the next one is asked, or that chip.',
        read_only=True,
        low=0.1,
        high=3600.0,
    )
    table.declare(
        'remote.max_images',
        default.max_images,
        'Images in one prompt that the servers take, those of earlier turns counted.',
        read_only=True,
        low=1,
        high=256,
    )
    table.declare(
        'remote.max_side',
        default.max_side,
        'Pixels; images are shrunk to this longer side before they are sent.',
        read_only=True,
        low=16,
        high=16384,
    )


def _declare_fallback(table: ParameterTable, default: RemoteSettings) -> None:
    table.declare(
        'remote.fallback_chip',
        default.fallback_chip,
        'Chip of this robot that answers where no server does in time; its model is loaded at the '
        'start. Empty: nobody does.',
        read_only=True,
        choices=('', *(name for name in chip_names() if name != REMOTE)),
    )
    table.declare(
        'remote.fallback_model',
        default.fallback_model,
        "Its model: a name of the catalogue or a path; empty: the chip's default.",
        read_only=True,
    )
    table.declare(
        'remote.order',
        default.order,
        'With a fallback_chip. remote_then_local: the servers are asked, and the chip where none '
        'has said a word in time. local_then_remote: the chip is asked, and a server where its '
        'answer is none of the choices, is not sure (remote.sure_from), or it cannot answer.',
        read_only=True,
        choices=ORDERS,
    )
    table.declare(
        'remote.sure_from',
        default.sure_from,
        'With local_then_remote: a choice of the chip that is less probable is asked of a server, '
        'too; 0: none is.',
        read_only=True,
        low=0.0,
        high=1.0,
    )


def read_remote(node: Node) -> RemoteSettings:
    """Read the parameters."""

    def value(name: str) -> str:
        return str(value_of(node, f'remote.{name}'))

    return RemoteSettings(
        servers=tuple(filled(value_of(node, 'remote.servers'))),
        api_key_env=value('api_key_env'),
        api_key_file=value('api_key_file'),
        ca_file=value('ca_file'),
        first_token_s=value_of(node, 'remote.first_token_s'),
        max_images=value_of(node, 'remote.max_images'),
        max_side=value_of(node, 'remote.max_side'),
        fallback_chip=value('fallback_chip'),
        fallback_model=value('fallback_model'),
        order=value('order'),
        sure_from=value_of(node, 'remote.sure_from'),
    )


def _problem_of_servers(texts: list[str]) -> str:
    listed = filled(texts)
    try:
        if listed:
            read_servers(','.join(listed))
    except EdgeVlmError as error:
        return error.message
    return ''


def _problem_of_key_name(name: str) -> str:
    try:
        if name:
            check_variable_name(name)
    except EdgeVlmError as error:
        return error.message
    return ''
