"""The parameters of the page's process, read into frozen settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.nodes.declaring import filled, value_of

if TYPE_CHECKING:
    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

_NODE: Final = re.compile(r'/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*')


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What stands here is what the parameters are by default.

    Attributes:
        host: Where to listen.
        port: Likewise; 0 = one that is free.
        names: Further names that the page is called by.
        token_file: File whose first line is the token; '' = one is made up.
        read_only: Nothing is asked from the page.
        vlm: The node whose page it is, relative to the namespace.
    """

    host: str = '127.0.0.1'
    port: int = 8080
    names: tuple[str, ...] = ()
    token_file: str = ''
    read_only: bool = False
    vlm: str = 'vlm'


def declare_parameters(table: ParameterTable) -> None:
    """Declare every parameter of the page's process.

    Raises:
        SettingsError: What was given for one at the start does not fit.
    """
    default = WebSettings()

    def declare(name: str, value: object, description: str, **limits: object) -> None:
        table.declare(f'web.{name}', value, description, read_only=True, **limits)  # type: ignore[arg-type]

    declare(
        'host',
        default.host,
        'Address that the page is served at. 127.0.0.1: for browsers of this machine alone; '
        '0.0.0.0: for the whole network, unencrypted.',
        check=_problem_of_host,
    )
    declare('port', default.port, 'Its port; 0: one that is free.', low=0, high=65535)
    declare(
        'names',
        [''],
        "Further names that browsers may call it by, such as a proxy's or robot.lan; any other "
        'is refused.',
    )
    declare(
        'token_file',
        default.token_file,
        'File whose first line is the token that whoever opens the page has to know; empty: one '
        'is made up at every start and printed with the address.',
    )
    declare(
        'read_only',
        default.read_only,
        'The page shows cameras, answers and states, and asks nothing.',
    )
    declare(
        'vlm',
        default.vlm,
        'The node whose page it is, relative to the namespace.',
        check=_problem_of_node,
    )


def read_settings(node: Node) -> WebSettings:
    """Read what the parameters say; call after `declare_parameters`."""
    return WebSettings(
        host=value_of(node, 'web.host'),
        port=value_of(node, 'web.port'),
        names=tuple(filled(value_of(node, 'web.names'))),
        token_file=value_of(node, 'web.token_file'),
        read_only=value_of(node, 'web.read_only'),
        vlm=value_of(node, 'web.vlm').rstrip('/'),
    )


def _problem_of_host(host: str) -> str:
    return '' if host.strip() == host != '' else f'an address or a name is wanted, not {host!r}'


def _problem_of_node(name: str) -> str:
    return '' if _NODE.fullmatch(name) else f'{name!r} is no name of a node'
