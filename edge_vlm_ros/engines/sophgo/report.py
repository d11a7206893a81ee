"""What a bmodel says of itself, as tables for `edge-vlm inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edge_vlm_ros.core import EngineLimits, ModelReport, ReportTable
from edge_vlm_ros.engines.sophgo.bmodel_file import BmodelFile
from edge_vlm_ros.engines.sophgo.contract import Contract
from edge_vlm_ros.engines.sophgo.layers import LayerKind
from edge_vlm_ros.engines.sophgo.nets import NetInfo, TensorInfo

_MIB = 2**20
_MODES: Mapping[int, str] = MappingProxyType({0: 'shared', 1: 'own', 2: "caller's", 3: "caller's"})


def report_of(bmodel: BmodelFile, contract: Contract, limits: EngineLimits) -> ModelReport:
    """Put facts and tables of a bmodel together."""
    facts = (
        ('file', str(bmodel.path)),
        ('chip', bmodel.chip.upper()),
        ('compiled', f'{bmodel.compiled} by {bmodel.compiler}'),
        ('cores', _cores(bmodel)),
        ('family', contract.family or 'text only'),
        ('layers', _layers(contract)),
        ('hidden size', f'{limits.hidden_size} {limits.hidden_dtype}'),
        ('prefill', contract.prefill.describe()),
        ('context', f'{limits.context_tokens} tokens, prompt and answer'),
        ('decode stages', ', '.join(map(str, contract.decoder.capacities))),
        ('vision tower', contract.tower.describe() if contract.tower else 'none'),
        ('embedding', 'on the chip' if contract.embeds_on_chip else 'table on disk'),
        ('head', contract.head.describe()),
        ('KV cache', _cache(contract)),
        ('weights', _mib(bmodel.weight_bytes)),
        ('commands', _mib(bmodel.command_bytes)),
        ('scratch', _mib(sum(bmodel.scratch_sizes[:1]) + bmodel.own_io_bytes)),
        ('device memory', f'{_mib(bmodel.device_bytes + contract.own_bytes)}'),
        ('nets not used', ', '.join(contract.unknown) or 'none'),
    )
    return ModelReport(facts, (_nets_table(bmodel),))


def _nets_table(bmodel: BmodelFile) -> ReportTable:
    """List every net's tensors; of nets that are alike in all but their number, the first."""
    rows: list[tuple[str, ...]] = []
    for names in _alike(bmodel.nets):
        net = bmodel.nets[names[0]]
        label = names[0] if len(names) == 1 else f'{names[0]} and {len(names) - 1} more'
        for kind, tensors in (('in', net.inputs), ('out', net.outputs)):
            for i, tensor in enumerate(tensors):
                is_first = kind == 'in' and i == 0
                head = (label, _kind(net, bmodel.cores[names[0]])) if is_first else ('', '')
                rows.append(
                    (*head, f'{kind} {i}', tensor.name, tensor.dtype.value, _shapes(tensor))
                )
    return ReportTable('nets', ('net', 'kind', 'tensor', 'name', 'type', 'shape'), tuple(rows))


def _alike(nets: Mapping[str, NetInfo]) -> list[list[str]]:
    """Group nets of one kind and the same shapes, in the order of their names' numbers."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in sorted(nets, key=_by_number):
        net = nets[name]
        tensors = (*net.inputs, *net.outputs)
        shapes = tuple((tensor.dtype, tensor.shapes) for tensor in tensors)
        stem = name.rstrip('0123456789')
        groups.setdefault((stem, net.is_dynamic, net.address_mode, shapes), []).append(name)
    return list(groups.values())


def _by_number(name: str) -> tuple[str, int]:
    stem = name.rstrip('0123456789')
    return stem, int(name[len(stem) :] or 0)


def _kind(net: NetInfo, cores: int) -> str:
    size = 'dynamic' if net.is_dynamic else 'static'
    return f'{size}, memory {_MODES[net.address_mode.value]}, cores {cores}'


def _shapes(tensor: TensorInfo) -> str:
    shapes = ('x'.join(map(str, shape)) for shape in dict.fromkeys(tensor.shapes))
    return ' | '.join(shapes)


def _cores(bmodel: BmodelFile) -> str:
    counts = sorted(set(bmodel.cores.values()))
    return ' and '.join(map(str, counts)) + (', by net' if len(counts) > 1 else '')


def _layers(contract: Contract) -> str:
    kinds = contract.decoder.kinds
    crossed = [i for i, kind in enumerate(kinds) if kind is LayerKind.CROSS]
    if not crossed:
        return f'{len(kinds)}'
    return f'{len(kinds)}, cross-attention at {", ".join(map(str, crossed))}'


def _cache(contract: Contract) -> str:
    place = (
        "in the decode nets' own memory"
        if contract.decoder.cache_in_net
        else ('in memory of ours, which the runtime copies for every token')
    )
    return f'{_mib(contract.decoder.cache_bytes)}, {place}'


def _mib(nbytes: int) -> str:
    return f'{nbytes / _MIB:.1f} MiB'
