"""Do the models on this disk fit the memory of the chip that is here?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from edge_vlm_ros.cli.axera_probes import ChipMemory, axera_memory, chip_of, sdk_version
from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine, is_older, version_in
from edge_vlm_ros.cli.model_list import with_data
from edge_vlm_ros.cli.sophgo_probes import (
    DeviceMemory,
    libsophon_version,
    memory_remedy,
    sophgo_memory,
)
from edge_vlm_ros.core import FileForm, ModelFileError, ModelFiles, chip_named
from edge_vlm_ros.engines.axera.memory_guard import KEPT_FREE, needed_bytes
from edge_vlm_ros.engines.cpu.external_data import check_external_data
from edge_vlm_ros.engines.sophgo.bmodel_file import BmodelFile, read_bmodel
from edge_vlm_ros.engines.sophgo.model_files import contract_of
from edge_vlm_ros.models import ModelEntry, catalogue_of, find_model, model_folders

TOPIC = 'Models and the memory here'
_MEBIBYTE = 1 << 20

Problem: TypeAlias = 'tuple[str, str]'
"""What was found, and what to do about it."""


def check_models(machine: Machine, model_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Compare every model of a chip family that is here with the chip's memory."""
    entries = catalogue_of(model_folders(model_dirs)).entries
    on_disk = [(entry, files) for entry in entries if (files := _found(entry, model_dirs))]
    bmodels = [pair for pair in on_disk if chip_named(pair[0].chip).vendor == 'Sophgo']
    if bmodels and machine.found('/dev/bm-sophon*', '/dev/bm-tpu*'):
        memory = sophgo_memory(machine)
        for entry, files in bmodels:
            yield check_bmodel(entry, files, memory, machine)
    chip = chip_of(machine)
    for entry, files in on_disk:
        if chip_named(entry.chip).file_form is FileForm.ONNX and entry.hub:
            yield check_onnx(entry, files, machine)
        if entry.chip == chip:
            yield check_axmodels(entry, files, machine)


def check_onnx(entry: ModelEntry, files: ModelFiles, machine: Machine) -> Finding:
    """Look whether all weights of a model of the CPU are there and fit the machine's memory."""
    name = f'{entry.name} ({entry.chip})'
    try:
        for path in files.weights.values():
            check_external_data(path)
    except ModelFileError as error:
        remedy = f'edge-vlm models fetch {entry.name} --chip {entry.chip}'
        return Finding(TOPIC, name, State.WARNING, error.message, remedy)
    size = _mebibytes(sum(path.stat().st_size for path in with_data(files.weights.values())))
    needed, there = max(entry.host_memory_mb, size), machine.memory_mb()
    if 0 < there < needed:
        found = f'takes {needed} MiB, there are {there} MiB'
        return Finding(TOPIC, name, State.WARNING, found, 'take a smaller model')
    return Finding(TOPIC, name, State.OK, f'takes {needed} of {there} MiB')


def _found(entry: ModelEntry, model_dirs: tuple[Path, ...]) -> ModelFiles | None:
    try:
        return find_model(entry.chip, entry.name, model_dirs)
    except ModelFileError:
        return None


def check_bmodel(
    entry: ModelEntry, files: ModelFiles, memory: DeviceMemory, machine: Machine
) -> Finding:
    """Compare a bmodel with the device's memory and with how that is shared out."""
    name = f'{entry.name} ({entry.chip})'
    try:
        bmodel = read_bmodel(files.weights['model'])
        own_bytes = contract_of(bmodel).own_bytes
    except ModelFileError as error:
        return Finding(TOPIC, name, State.WARNING, error.message, 'fetch or build it again')
    needed = _mebibytes(bmodel.device_bytes + own_bytes)
    problem = (
        _other_chip(entry, bmodel)
        or _too_old(entry, libsophon_version(machine))
        or _shared_out_otherwise(entry, memory, machine)
        or _too_large(needed, memory, machine)
    )
    if problem:
        return Finding(TOPIC, name, State.WARNING, *problem)
    there = f'of {memory.total_mb} MiB' if memory.total_mb else 'MiB; what there is is not known'
    return Finding(TOPIC, name, State.OK, f'takes {needed} {there}')


def _mebibytes(nbytes: int) -> int:
    return -(-nbytes // _MEBIBYTE)


def _other_chip(entry: ModelEntry, bmodel: BmodelFile) -> Problem | None:
    if bmodel.chip == entry.chip:
        return None
    return f'{bmodel.path} is built for {bmodel.chip}', 'fetch the one of this chip'


def _shared_out_otherwise(
    entry: ModelEntry, memory: DeviceMemory, machine: Machine
) -> Problem | None:
    """Say that a SoC's heaps are smaller than the publisher asks for."""
    asked = entry.soc_memory
    if not asked or not memory.heaps_mb:
        return None
    wanted = {'npu': asked.npu_mb, 'vpu': asked.vpu_mb, 'vpp': asked.vpp_mb}
    has = {heap: memory.heaps_mb.get(heap, 0) for heap in wanted}
    if all(has[heap] >= size for heap, size in wanted.items()):
        return None
    found = f'wants {_sizes(wanted)} MiB, this SoC has {_sizes(has)}'
    return found, memory_remedy(asked.command, machine)


def _too_large(needed_mb: int, memory: DeviceMemory, machine: Machine) -> Problem | None:
    if not memory.total_mb or needed_mb <= memory.total_mb:
        return None
    remedy = memory_remedy('./memory_edit.sh -c -npu N -vpu N -vpp N', machine)
    found = f'takes {needed_mb} MiB, there are {memory.total_mb} MiB'
    return found, remedy if memory.heaps_mb else 'take a smaller model'


def _too_old(entry: ModelEntry, here: tuple[int, ...]) -> Problem | None:
    """Say that the board's SDK is older than the model asks for, where both are known."""
    if not is_older(here, version_in(entry.sdk_version)):
        return None
    found = f'is made for {entry.sdk} or later, this is {".".join(map(str, here))}'
    return found, "update the board's SDK"


def _sizes(heaps: dict[str, int]) -> str:
    return ', '.join(f'{heap} {size}' for heap, size in heaps.items())


def check_axmodels(entry: ModelEntry, files: ModelFiles, machine: Machine) -> Finding:
    """Compare an axmodel set with the chip's memory and the host's."""
    name = f'{entry.name} ({entry.chip})'
    needed = _mebibytes(needed_bytes(files))
    memories = axera_memory(machine)
    largest = max(memories, key=lambda memory: memory.total_mb, default=None)
    problem = (
        _too_old(entry, sdk_version(machine))
        or (_too_large_for_chip(needed, largest) if largest else None)
        or _too_large_for_host(entry, machine.memory_mb())
    )
    if problem:
        return Finding(TOPIC, name, State.WARNING, *problem)
    free = f' of {largest.free_mb} MiB free' if largest else ''
    return Finding(TOPIC, name, State.OK, f'takes {needed} MiB of CMM{free}')


def _too_large_for_chip(needed_mb: int, memory: ChipMemory) -> Problem | None:
    with_spare_mb = needed_mb + KEPT_FREE // _MEBIBYTE
    if with_spare_mb > memory.total_mb:
        found = f'takes {needed_mb} MiB of CMM, there are {memory.total_mb} MiB'
        return found, 'take a smaller model, or a board that gives the CMM more of its memory'
    if with_spare_mb > memory.free_mb:
        found = f'takes {needed_mb} MiB of CMM, {memory.free_mb} MiB are free'
        return found, 'end the program that holds the rest'
    return None


def _too_large_for_host(entry: ModelEntry, host_mb: int) -> Problem | None:
    asked = entry.host_memory_mb
    if not asked or not 0 < host_mb < asked:
        return None
    found = f'the publisher asks for {asked} MiB of host memory, there are {host_mb} MiB'
    return found, 'it may load all the same: the embedding table is mapped, not read'
