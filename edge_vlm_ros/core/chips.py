"""Which chips there are: the one table of them, and those that other packages bring.

A chip is a row here and a folder in `engines/`. Who wants to know which chips there are, what
their files look like or who opens them reads this table: parameters, catalogue, registry, launch
file, command line and tests.

A chip from outside needs no change of this package: another package brings its row under an
entry point (see `core.installed_rows`) of the group `edge_vlm_ros.chips`, named like the chip. The
module that holds the row should import nothing heavy; whoever lists the chips loads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge_vlm_ros.core.errors import BadRequestError, ErrorCode
from edge_vlm_ros.core.installed_rows import BrokenRow, InstalledRows

CHIP_GROUP = 'edge_vlm_ros.chips'


class FileForm(Enum):
    """How the files of a model for a chip lie on the disk; `models.by_path` finds each form."""

    ONE_FILE = 'one file'
    """A file with the chip's suffix; whatever else the engine wants lies beside it."""

    ONNX = 'split ONNX layout'
    """vision_encoder.onnx, embed_tokens.onnx and decoder_model_merged.onnx."""

    AXMODELS = 'axmodel set'
    """A file for each decoder layer, a head, an embedding table, a vision tower."""

    SCRIPT = 'script'
    """A YAML file for the scripted engine."""

    NO_FILES = 'no files'
    """What answers has the model itself: a server."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip.

    Attributes:
        name: As users call it: `chip:=bm1684x`.
        vendor: Who makes it; chips of one vendor share folder, library and probes.
        file_form: How a model's files lie.
        suffix: How the file of its models' weights ends, with the full stop.
        engine: The module with `open_engine`; '' where its backend needs none.
        default_model: Its model where none is named: a name of the catalogue; '' = one must be
            named.
        backend: 'module:class' of the backend that answers questions on it.
        is_launchable: Whether the launch file offers it.
        check: 'module:function' that checks a `ModelSpec` where there are no files to look for,
            and imports nothing heavy; '' = nothing can be checked.
        memory: 'module:function' that reads off the driver how much of the chip's memory is free
            and says what a model's `ModelFiles` need of it, as a `MemoryFigure` or None; opens no
            device and imports nothing heavy; '' = the driver does not say without that.
    """

    name: str
    vendor: str
    file_form: FileForm
    suffix: str
    engine: str
    default_model: str = ''
    backend: str = 'edge_vlm_ros.serving.pipeline:VlmPipeline'
    is_launchable: bool = True
    check: str = ''
    memory: str = ''


@dataclass(frozen=True, slots=True)
class MemoryFigure:
    """What a driver says of its chip's memory.

    Attributes:
        free_bytes: Is free.
        needed_bytes: A model needs at least so much.
        source: Where the driver says it.
    """

    free_bytes: int
    needed_bytes: int
    source: str


def _sophgo(name: str) -> Chip:
    engine = 'edge_vlm_ros.engines.sophgo.opening'
    return Chip(name, 'Sophgo', FileForm.ONE_FILE, '.bmodel', engine, 'internvl3-2b')


def _axera(name: str, default_model: str) -> Chip:
    engine = 'edge_vlm_ros.engines.axera.engine'
    memory = 'edge_vlm_ros.engines.axera.memory_figure:memory_figure'
    form = FileForm.AXMODELS
    return Chip(name, 'Axera', form, '.axmodel', engine, default_model, memory=memory)


CHIPS = (
    Chip('cpu', 'any', FileForm.ONNX, '.onnx', 'edge_vlm_ros.engines.cpu.engine', 'demo'),
    Chip(
        'scripted',
        'none',
        FileForm.SCRIPT,
        '.yaml',
        'edge_vlm_ros.engines.scripted.engine',
        'scripted',
    ),
    _sophgo('bm1684x'),
    _sophgo('bm1688'),
    _axera('ax650', 'internvl3-2b'),
    _axera('ax630c', 'internvl3-1b'),
    Chip(
        'remote',
        'any server',
        FileForm.NO_FILES,
        suffix='',
        engine='',
        backend='edge_vlm_ros.serving.remote.opening:Remote',
        check='edge_vlm_ros.serving.remote.opening:check_remote',
    ),
)
"""Those of this package, in the order in which they are listed."""

_OWN = {chip.name: chip for chip in CHIPS}
_INSTALLED = InstalledRows(CHIP_GROUP, Chip, tuple(_OWN))


def chip_named(name: str) -> Chip:
    """Return a chip's row; only for a name that is not of this package others are looked at.

    Raises:
        BadRequestError: There is no chip of that name; lists those there are.
        PackageError: The package that brings the chip is broken.
    """
    chip = _OWN.get(name) or _INSTALLED.find(name)
    if chip is None:
        listed = ', '.join(chip_names())
        raise BadRequestError(
            f'there is no chip {name!r}; chips are: {listed}', ErrorCode.UNSUPPORTED_OPTION
        )
    return chip


def is_chip(name: str) -> bool:
    """Return whether there is a chip of a name; loads none of another package."""
    return name in _OWN or name in _INSTALLED.names()


def chip_names() -> tuple[str, ...]:
    """Name all chips, those of other packages last; loads none of them."""
    return (*_OWN, *_INSTALLED.names())


def known_chips() -> tuple[Chip, ...]:
    """Return every chip's row; what is broken is left out, see `broken_chips`."""
    return (*CHIPS, *_INSTALLED.load_all().rows)


def launchable_chips() -> tuple[str, ...]:
    """Name the chips that the launch file offers."""
    return tuple(chip.name for chip in known_chips() if chip.is_launchable)


def broken_chips() -> tuple[BrokenRow, ...]:
    """Return what other packages bring as chips and nobody can use, and why."""
    return _INSTALLED.load_all().broken
