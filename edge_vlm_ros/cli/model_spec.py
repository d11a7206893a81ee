"""Which model a command uses, as its words say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.cli.server_options import options_of
from edge_vlm_ros.core import parse_option
from edge_vlm_ros.serving import ModelSpec

if TYPE_CHECKING:
    from argparse import Namespace


def spec_of(args: Namespace) -> ModelSpec:
    """Return the model that the options about models and servers name.

    Raises:
        BadRequestError: An option is not of the form name=value.
    """
    return ModelSpec(
        chip=args.chip,
        model=args.model,
        device_ids=tuple(args.device_id),
        model_dirs=tuple(args.model_dir),
        options={**options_of(args), **dict(map(parse_option, args.option))},
    )
