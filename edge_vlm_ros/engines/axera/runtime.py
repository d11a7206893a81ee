"""axengine, thin and typed. The only module that imports it; nothing above sees its errors.

axengine is AXERA's Python package over the NPU's C libraries. Importing it opens the driver,
prints, and raises where there is none, so it is imported when a chip is opened. Its defects that
would otherwise be ours are kept out here: arrays are handed over contiguous, outputs are never
chosen by name, paths are `str`, providers a list, and chip memory is given back, which the package
itself does only in part and too late (`give_back`).

Source: AXERA-TECH/pyaxengine, 0.1.3 (_session.py, _axe.py, _axclrt.py, _base_session.py).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import io
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, EdgeVlmError, ModelFileError, SetupError
from edge_vlm_ros.engines.axera.chip_memory import CMM_INFO
from edge_vlm_ros.engines.axera.give_back import free, free_unfinished
from edge_vlm_ros.engines.axera.load_progress import BeforeFile, never_stopped
from edge_vlm_ros.engines.axera.providers import (
    ON_CARD,
    ON_CHIP,
    ProviderName,
    choose_provider,
    is_ambiguous,
)
from edge_vlm_ros.engines.axera.refused import (
    SDK_WITH_BF16,
    NoCardError,
    why_not_imported,
    why_not_opened,
)
from edge_vlm_ros.engines.vendor_words import brief

if TYPE_CHECKING:
    from types import ModuleType

_log = logging.getLogger(__name__)

RELEASES = 'https://github.com/AXERA-TECH/pyaxengine/releases'
OLDEST_PACKAGE = (0, 1, 3)
"""Older ones lack shape groups or give out arrays that the next run overwrites."""
BFLOAT16 = 'bfloat16'
MOST_VALUES = 1 << 28
"""Of one tensor; the caches and scores of the published sets have up to some millions."""

# What the package calls the boards: its enum of chip types (on the chip itself), and the name that
# the driver of a card gives (AXCL).
_CHIPS = {'MC50': 'ax650', 'MC20E': 'ax630c', 'M57H': 'm57h'}
_SOC_NAMES = (
    (re.compile(r'650'), 'ax650'),
    (re.compile(r'63[0-9]|62[0-9]'), 'ax630c'),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output as the file declares it.

    Attributes:
        name: Its name.
        shape: Sizes.
        dtype: 'bfloat16', 'float32', 'uint32', 'uint8', ...
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one such tensor."""
        size = 2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize
        return size * int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return f'{self.dtype} {list(self.shape)}'


@dataclass(frozen=True, slots=True)
class ShapeGroup:
    """One set of shapes that a file was compiled for; runs name it by its number."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """Where sessions are opened.

    Attributes:
        chip: 'ax650' or 'ax630c'; '' = not checked.
        provider: axengine's name of the way to the chip.
        index: On a card its number in the driver's list; None on the chip itself.
        axengine: The module.
        cmm_info: Where the driver on the chip's own board reports memory.
        loaded: Files that it has loaded; sessions add to it.
        before_file: Called before each file is loaded; raises CancelledError to stop there.
    """

    chip: str
    provider: str
    index: int | None
    axengine: ModuleType = field(repr=False)
    cmm_info: Path = CMM_INFO
    loaded: set[Path] = field(default_factory=set, repr=False, compare=False)
    before_file: BeforeFile = field(default=never_stopped, repr=False, compare=False)

    @property
    def is_card(self) -> bool:
        """Whether the chip sits on a card, behind PCIe."""
        return self.index is not None


def open_device(
    chip: str,
    device_ids: tuple[int, ...] = (),
    provider: ProviderName = 'auto',
    trial: Path | None = None,
) -> Device:
    """Import axengine and choose the way to the chip.

    Args:
        chip: 'ax650' or 'ax630c'.
        device_ids: Of cards, as their driver counts them; empty = the first one.
        provider: 'chip' = on its own board, 'card', or 'auto' = by what is there.
        trial: A file of the model, opened and closed where a card is chosen by its looks alone
            and the chip of the board could take its place.

    Raises:
        DeviceError: No package, no driver, or no such device; says who can act.
        ModelFileError: The file of the trial is missing or refused.
    """
    axengine = _import_axengine()
    available = list(axengine.get_available_providers())
    if len(device_ids) > 1:
        raise SetupError(f'chip {chip}: one device runs one model, not {list(device_ids)}')
    wanted = device_ids[0] if device_ids else 0
    chosen = choose_provider(provider, available, wanted)
    if chosen == ON_CARD:
        card = Device(chip, chosen, wanted, axengine)
        if device_ids or trial is None or not is_ambiguous(provider, available):
            return card
        return _card_or_chip(card, trial)
    if wanted:
        raise SetupError(
            f'chip {chip} on its own board has the one device 0, not {wanted} '
            f'(for cards, axengine needs the library libaxcl_rt; it found {", ".join(available)})'
        )
    return Device(chip, chosen, None, axengine)


def _card_or_chip(card: Device, trial: Path) -> Device:
    """Take a card if its driver lists it, else the chip of the board."""
    try:
        Session(card, trial).close()
    except NoCardError as error:
        _log.warning('the chip of this board is taken: %s', error)
        return replace(card, provider=ON_CHIP, index=None)
    card.loaded.clear()
    return card


Feeds: TypeAlias = 'Mapping[str, NDArray[Any]]'


class Session:
    """One axmodel file on the chip. One thread calls all of it.

    Args:
        device: Where.
        path: The file; mapped by the package, not read as a whole.

    Raises:
        ModelFileError: The file is missing or the driver refuses it.
        DeviceError: The driver does not work, is too old, the board is another one, or its NPU is
            full or busy; also where that cannot be distinguished from a damaged file.
    """

    def __init__(self, device: Device, path: Path) -> None:
        if not path.is_file():
            raise ModelFileError(f'{path}: no such file')
        device.before_file()
        self.path = path
        self._vendor: Any = _open_vendor(device, path)
        try:
            _check_board(device, self._vendor)
            described = _groups(self._vendor)
            self.groups = tuple(_described(group) for group in described)
            """Shapes, by group number."""
            self._dtypes = [
                {tensor.name: np.dtype(tensor.dtype) for tensor in inputs}
                for inputs, _ in described
            ]
            self._shapes = [
                {tensor.name: tensor.shape for tensor in group.inputs} for group in self.groups
            ]
        except Exception as error:
            self.close()
            if isinstance(error, EdgeVlmError):
                raise
            raise ModelFileError(f'{path}: its tensors cannot be read: {brief(error)}') from error
        device.loaded.add(path)

    def run(self, group: int, feeds: Feeds) -> list[NDArray[Any]]:
        """Run one shape group.

        Args:
            group: Its number.
            feeds: By input name; bfloat16 as uint16 bit patterns.

        Returns:
            The group's outputs in the file's order, in memory of their own; bfloat16 as uint16.

        Raises:
            DeviceError: The chip failed.
        """
        assert self._vendor is not None, f'{self.path.name} is closed'
        handed = {name: self._handed(group, name, array) for name, array in feeds.items()}
        for name in self._dtypes[0]:
            # The package demands group 0's names of every group and ignores those it has not.
            handed.setdefault(name, next(iter(handed.values())))
        try:
            results = self._vendor.run(None, handed, shape_group=group)
        except Exception as error:  # the package raises whatever it meets
            raise DeviceError(f'{self.path.name}: the chip failed: {brief(error)}') from error
        outputs = self.groups[group].outputs
        return [
            _as_bits(_our_own(array), tensor)
            for array, tensor in zip(results, outputs, strict=True)
        ]

    def close(self) -> None:
        """Give the chip's memory back; safe to call twice."""
        vendor, self._vendor = self._vendor, None
        if vendor is not None:
            free(vendor)

    def _handed(self, group: int, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Check an input as the package would, and give it the package's own type."""
        dtype = self._dtypes[group][name]
        shape = self._shapes[group][name]
        assert array.shape == shape, (self.path.name, group, name, array.shape, shape)
        handed = np.ascontiguousarray(array)
        if handed.dtype != dtype:
            assert handed.dtype == np.uint16, (self.path.name, name, handed.dtype, dtype)
            assert dtype.itemsize == handed.itemsize, (self.path.name, name, dtype)
            handed = handed.view(dtype)
        return handed


OpenSession: TypeAlias = Callable[[Path], Session]
"""Opens one file on the device that the engine was given."""


def _import_axengine() -> ModuleType:
    try:
        with _quietly('import axengine'):
            import axengine
    except ModuleNotFoundError as error:
        if error.name == 'axengine':
            raise SetupError(
                'the Python package axengine is not installed (it is not on PyPI): install the '
                f'wheel of version {_dotted(OLDEST_PACKAGE)} or newer from {RELEASES}'
            ) from error
        raise why_not_imported(error) from error
    except ImportError as error:
        raise why_not_imported(error) from error
    except Exception as error:  # the package runs the driver's start-up code on import
        raise DeviceError(f'axengine cannot be imported: {brief(error)}') from error
    _check_package(axengine)
    return axengine


def _check_package(axengine: ModuleType) -> None:
    """Refuse versions without what we use; a copy without metadata is judged by its functions."""
    try:
        version = importlib.metadata.version('axengine')
    except importlib.metadata.PackageNotFoundError:
        version = ''
    numbers = tuple(int(number) for number in re.findall(r'\d+', version)[:3])
    is_old = bool(numbers) and numbers < OLDEST_PACKAGE
    has_groups = 'shape_group' in inspect.signature(axengine.InferenceSession.run).parameters
    if is_old or not has_groups:
        found = version if has_groups else f'{version} without shape groups'
        raise SetupError(
            f'axengine {found} is too old: install {_dotted(OLDEST_PACKAGE)} or newer '
            f'from {RELEASES}'
        )


def _open_vendor(device: Device, path: Path) -> Any:
    """Open the package's session; what it printed goes to the log."""
    options = [{'device_id': device.index}] if device.is_card else None
    try:
        with _quietly(path.name):
            # Paths as `str`: the card's side of the package takes no others.
            return device.axengine.InferenceSession(
                str(path), providers=[device.provider], provider_options=options
            )
    except Exception as error:
        free_unfinished(error)
        raise why_not_opened(device, path, error) from error


def _check_board(device: Device, vendor: Any) -> None:
    """Refuse a board that says it is another chip than the one asked for."""
    found = _board_of(getattr(vendor, '_sess', None))
    if device.chip in SDK_WITH_BF16 and found and found != device.chip:
        raise SetupError(f'chip {device.chip} was asked for, the board has an {found}')


def _board_of(session: object) -> str:
    """Name the chip as the package names it; '' where it does not."""
    soc_name = getattr(session, 'soc_name', None)
    if isinstance(soc_name, str):
        return next((chip for pattern, chip in _SOC_NAMES if pattern.search(soc_name)), '')
    return _CHIPS.get(getattr(getattr(session, '_chip_type', None), 'name', ''), '')


def _groups(vendor: Any) -> list[tuple[list[Any], list[Any]]]:
    """Ask for one group after another: there is no count, and two ways to say there is no more."""
    groups: list[tuple[list[Any], list[Any]]] = []
    with contextlib.suppress(IndexError, ValueError):
        while True:
            groups.append((vendor.get_inputs(len(groups)), vendor.get_outputs(len(groups))))
    if not groups:
        raise ValueError('no shape group')
    return groups


def _described(group: tuple[list[Any], list[Any]]) -> ShapeGroup:
    inputs, outputs = group
    return ShapeGroup(tuple(map(_tensor, inputs)), tuple(map(_tensor, outputs)))


def _tensor(declared: Any) -> TensorInfo:
    shape = tuple(int(size) for size in declared.shape)
    if not shape or min(shape) < 1 or math.prod(shape) > MOST_VALUES:
        raise ValueError(
            f'{declared.name} has the sizes {list(shape)}: each is from 1 on, and together they '
            f'make {MOST_VALUES} values at most'
        )
    return TensorInfo(str(declared.name), shape, np.dtype(declared.dtype).name)


def _our_own(array: NDArray[Any]) -> NDArray[Any]:
    """Copy what lies in memory that is not numpy's: the first 0.1.3 hands out its buffers."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return array if isinstance(owner, np.ndarray) else array.copy()


def _as_bits(array: NDArray[Any], tensor: TensorInfo) -> NDArray[Any]:
    return array.view(np.uint16) if tensor.dtype == BFLOAT16 else array


@contextlib.contextmanager
def _quietly(what: str) -> Iterator[None]:
    """Send what the package prints to the log."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            level = logging.WARNING if 'WARNING' in line else logging.DEBUG
            _log.log(level, '%s: %s', what, line)


def _dotted(version: tuple[int, ...]) -> str:
    return '.'.join(map(str, version))
