"""Do the models on this disk fit the chip that is here?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_vlm_ros.cli.axera_probes import axera_memory, chip_of
from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine
from edge_vlm_ros.cli.sophgo_probes import DeviceMemory, memory_remedy, sophgo_memory
from edge_vlm_ros.core import ModelFileError, ModelFiles
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel
from edge_vlm_ros.models import ModelEntry, catalogue_of, find_model, model_folders
from edge_vlm_ros.models.catalogue import AXERA_CHIPS, SOPHGO_CHIPS

TOPIC = 'Models and the memory here'
_MEBIBYTE = 1 << 20


def check_models(machine: Machine, model_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Compare every model of a chip family that is here with the chip's memory."""
    entries = catalogue_of(model_folders(model_dirs)).entries
    on_disk = [(entry, files) for entry in entries if (files := _found(entry, model_dirs))]
    bmodels = [pair for pair in on_disk if pair[0].chip in SOPHGO_CHIPS]
    if bmodels and machine.found('/dev/bm-sophon*', '/dev/bm-tpu*'):
        memory = sophgo_memory(machine)
        for entry, files in bmodels:
            yield check_bmodel(entry, files, memory, machine)
    chip = chip_of(machine)
    for entry, files in on_disk:
        if entry.chip in AXERA_CHIPS and entry.chip == chip:
            yield check_axmodels(entry, files, machine)


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
    except ModelFileError as error:
        return Finding(TOPIC, name, State.WARNING, error.message, 'fetch or build it again')
    needed = bmodel.device_bytes // _MEBIBYTE
    asked = entry.soc_memory
    if bmodel.chip != entry.chip:
        found = f'{bmodel.path} is built for {bmodel.chip}'
        return Finding(TOPIC, name, State.WARNING, found, 'fetch the one of this chip')
    if not memory.total_mb:
        return Finding(TOPIC, name, State.OK, f'takes {needed} MB; what there is is not known')
    if asked and memory.heaps_mb:
        wanted = {'npu': asked.npu_mb, 'vpu': asked.vpu_mb, 'vpp': asked.vpp_mb}
        has = {heap: memory.heaps_mb.get(heap, 0) for heap in wanted}
        if any(has[heap] < size for heap, size in wanted.items()):
            found = f'wants {_sizes(wanted)} MB, this SoC has {_sizes(has)}'
            remedy = memory_remedy(asked.command, machine)
            return Finding(TOPIC, name, State.WARNING, found, remedy)
    if needed > memory.total_mb:
        found = f'takes {needed} MB, there are {memory.total_mb} MB'
        remedy = memory_remedy('./memory_edit.sh -c -npu N -vpu N -vpp N', machine)
        remedy = remedy if memory.heaps_mb else 'take a smaller model'
        return Finding(TOPIC, name, State.WARNING, found, remedy)
    return Finding(TOPIC, name, State.OK, f'takes {needed} of {memory.total_mb} MB')


def _sizes(heaps: dict[str, int]) -> str:
    return ', '.join(f'{heap} {size}' for heap, size in heaps.items())


def check_axmodels(entry: ModelEntry, files: ModelFiles, machine: Machine) -> Finding:
    """Compare an axmodel set with the chip's memory and the host's."""
    name = f'{entry.name} ({entry.chip})'
    on_chip = (path for part, path in files.weights.items() if part != 'embed_tokens')
    least = sum(path.stat().st_size for path in on_chip) // _MEBIBYTE
    needed = max(entry.device_memory_mb, least)
    memories = axera_memory(machine)
    largest = max(memories, key=lambda memory: memory.total_mb, default=None)
    host = machine.memory_mb()
    if largest and needed > largest.total_mb:
        found = f'takes {needed} MB of CMM, there are {largest.total_mb} MB'
        remedy = 'take a smaller model, or a board that gives the CMM more of its memory'
        return Finding(TOPIC, name, State.WARNING, found, remedy)
    if largest and needed > largest.free_mb:
        found = f'takes {needed} MB of CMM, {largest.free_mb} MB are free'
        return Finding(TOPIC, name, State.WARNING, found, 'end the program that holds the rest')
    if entry.host_memory_mb and 0 < host < entry.host_memory_mb:
        asked = entry.host_memory_mb
        found = f'the publisher asks for {asked} MB of host memory, there are {host} MB'
        remedy = 'it may load all the same: the embedding table is mapped, not read'
        return Finding(TOPIC, name, State.WARNING, found, remedy)
    free = f' of {largest.free_mb} MB free' if largest else ''
    return Finding(TOPIC, name, State.OK, f'takes {needed} MB of CMM{free}')
