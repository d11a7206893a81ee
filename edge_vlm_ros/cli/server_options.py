"""The words of the command line that are about servers. Only the standard library, as `parser`."""

from __future__ import annotations

import argparse

REMOTE = 'remote'


def add_server_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where servers are, and what they want."""
    parser.add_argument(
        '--server',
        action='append',
        default=[],
        metavar='URL',
        help='an OpenAI-compatible server, such as http://gpu-box:8000/v1: images are sent there; '
        'may be repeated, the preferred one first',
    )
    parser.add_argument(
        '--key-env',
        default='',
        metavar='NAME',
        help='the environment variable that holds their key; never the key itself',
    )
    parser.add_argument(
        '--ca-file',
        default='',
        metavar='FILE',
        help="certificates that they are verified with (default: the system's)",
    )


def add_fallback_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say who answers where no server does."""
    parser.add_argument(
        '--fallback-chip',
        default='',
        metavar='CHIP',
        help='what answers where no server does (default: nothing)',
    )
    parser.add_argument(
        '--fallback-model', default='', metavar='MODEL', help="its model (default: the chip's)"
    )


def problem_of(args: argparse.Namespace) -> str:
    """Say what of the options about servers does not fit together; '' = they do."""
    named = {
        '--server': args.server,
        '--key-env': args.key_env,
        '--ca-file': args.ca_file,
        '--fallback-chip': args.fallback_chip,
        '--fallback-model': args.fallback_model,
    }
    given = [name for name, value in named.items() if value]
    if given and args.chip != REMOTE:
        return f'{given[0]} is for --chip {REMOTE}: nothing is sent anywhere else'
    return ''


def options_of(args: argparse.Namespace) -> dict[str, object]:
    """Return them as options of the chip `remote`; none where none was given."""
    chosen = {
        'servers': ','.join(args.server),
        'api_key_env': args.key_env,
        'ca_file': args.ca_file,
        'fallback_chip': getattr(args, 'fallback_chip', ''),
        'fallback_model': getattr(args, 'fallback_model', ''),
    }
    return {name: value for name, value in chosen.items() if value}
