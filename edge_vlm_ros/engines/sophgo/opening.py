"""A bmodel from its files to an engine, or to a report of what it holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from edge_vlm_ros.core import (
    ModelFiles,
    ModelReport,
    Options,
    SetupError,
    count,
    read_options,
)
from edge_vlm_ros.engines.base import OnLoaded
from edge_vlm_ros.engines.sophgo.device import Device
from edge_vlm_ros.engines.sophgo.embedding import rows_of_table
from edge_vlm_ros.engines.sophgo.engine import SophgoEngine
from edge_vlm_ros.engines.sophgo.model_files import (
    check_config,
    contract_of,
    find_embedding_table,
    read_for_chip,
)
from edge_vlm_ros.engines.sophgo.report import report_of
from edge_vlm_ros.engines.sophgo.runtime import Runtime

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SophgoOptions(Options):
    """What may be chosen.

    Attributes:
        kv_slots: Prompts that the KV cache may hold side by side, each after the first in memory
            of its own once it is used; 0 = 2 where the chip is known to have memory to spare for
            that, else 1. A model with cross-attention has 1.
    """

    kv_slots: int = count()


OPTIONS = SophgoOptions


def open_engine(
    files: ModelFiles,
    device_ids: tuple[int, ...],
    options: Mapping[str, object],
    on_loaded: OnLoaded,
) -> SophgoEngine:
    """Load a model; see `engines.open_engine`."""
    chosen = read_options(SophgoOptions, options, f'chip {files.chip}')
    # All that the files alone can tell comes first: no device is needed to refuse them.
    bmodel = read_for_chip(files)
    contract = contract_of(bmodel)
    vocab = check_config(files, bmodel.path, contract)
    ask = partial(on_loaded, 0, 1)  # Whether to go on; the one file is loaded at once.
    with ExitStack() as opening:
        device = _open_device(files.chip, device_ids)
        opening.callback(device.close)
        loaded = bmodel.loaded_bytes(shares_scratch=device.shares_scratch)
        device.check_memory(loaded + contract.own_bytes, bmodel.path)
        ask()
        runtime = Runtime(device, bmodel.path)
        opening.callback(runtime.close)
        ask()
        engine = SophgoEngine(runtime, contract, vocab, files, chosen.kv_slots, before_run=ask)
        on_loaded(1, 1)
        opening.pop_all()  # The engine closes them.
    _log.info('loaded %s: compiled by %s, %s', files.name, bmodel.compiler, engine.limits)
    return engine


def inspect_model(files: ModelFiles, device_ids: tuple[int, ...]) -> ModelReport:
    """Say what a bmodel holds; see `engines.inspect_model`. Reads the file, needs no device."""
    del device_ids
    bmodel = read_for_chip(files)
    contract = contract_of(bmodel)
    vocab = check_config(files, bmodel.path, contract)
    return report_of(bmodel, contract, contract.limits(vocab))


def known_tokens(files: ModelFiles) -> int | None:
    """Count the rows of a table on disk; nets do not say them. See `engines.known_tokens`."""
    contract = contract_of(read_for_chip(files))
    return (
        None
        if contract.embeds_on_chip
        else rows_of_table(find_embedding_table(files), contract.decoder)
    )


def _open_device(chip: str, device_ids: tuple[int, ...]) -> Device:
    """Take one chip.

    Raises:
        DeviceError: The chip is not there or does not work, or several were named.
    """
    if len(device_ids) > 1:
        raise SetupError(
            f'one device runs one model, {len(device_ids)} were named: {list(device_ids)}'
        )
    return Device(chip, device_ids[0] if device_ids else 0)
