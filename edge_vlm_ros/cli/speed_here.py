"""How fast a model should be on the chip that is here, and after a run why it was slower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.cli.axera_probes import chip_of
from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine
from edge_vlm_ros.cli.slowness import Cause, cause_of_copies, causes_of_slowness
from edge_vlm_ros.cli.sophgo_probes import is_bm1688

if TYPE_CHECKING:
    from edge_vlm_ros.core import ModelFiles
    from edge_vlm_ros.models import ModelEntry
    from edge_vlm_ros.models.published_speed import PublishedSpeed

TOPIC: Final = 'Speed to expect here'
_SLOWER: Final = 0.8
"""Below this part of what was expected a run is explained."""
_BANDWIDTHS: Final = {'bm1684x': 68.3e9, 'bm1688': 34.1e9}
"""Of the chips' memory at its best, bytes a second; each token reads every weight."""
_REACHED: Final = 0.65
"""Of that, in the published runs: 0.5 to 0.9."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a model should do here.

    Attributes:
        tokens_per_s: Of an answer.
        first_token_s: About one image; 0 = not known.
        how: Where the numbers are from.
    """

    tokens_per_s: float
    first_token_s: float
    how: str

    def __str__(self) -> str:
        first = f'first token after {self.first_token_s:.2f} s with one image, '
        rate = f'{self.tokens_per_s:.1f} tokens/s ({self.how})'
        return f'{first}{rate}' if self.first_token_s else rate


def expect(entry: ModelEntry, weight_bytes: int, causes: list[Cause]) -> Expectation | None:
    """Say what to expect of a model on its chip; None = nothing is known.

    Args:
        entry: The model.
        weight_bytes: Of its file, as the file says; 0 = not known.
        causes: What slows this machine down; a clock's share is reckoned in.
    """
    slower = 1.0
    for cause in causes:
        slower *= cause.factor
    if entry.speed is not None:
        how = f'measured on {entry.speed.where or "another board"}'
        rate, first = entry.speed.tokens_per_s, entry.speed.first_token_s
    elif weight_bytes and entry.chip in _BANDWIDTHS:
        how = f'estimated: {weight_bytes >> 20} MiB of weights are read for each token'
        rate, first = _REACHED * _BANDWIDTHS[entry.chip] / weight_bytes, 0.0
    else:
        return None
    if slower > 1.0:
        how += f', {slower:.2f} times slower at the clock here'
    return Expectation(rate / slower, first * slower, how)


def find_speed(machine: Machine, model_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Predict for each model on this disk for the chip here, and name what slows it down."""
    from edge_vlm_ros.models import catalogue_of, model_folders

    chip = chip_here(machine)
    entries = catalogue_of(model_folders(model_dirs)).models_for(chip) if chip else ()
    causes = causes_of_slowness(machine)
    is_any = False
    for entry in entries:
        files = _found(entry, model_dirs)
        expected = expect(entry, _weight_bytes(files), causes) if files is not None else None
        if expected is not None:
            is_any = True
            yield Finding(TOPIC, f'{entry.name} ({chip})', State.OK, str(expected))
    if is_any:
        for cause in causes:
            yield Finding(TOPIC, cause.name, State.WARNING, cause.found, cause.remedy)


def chip_here(machine: Machine) -> str:
    """Name the accelerator that this machine has; '' = none is known."""
    if machine.found('/dev/bm-sophon*', '/dev/bm-tpu*'):
        return 'bm1688' if is_bm1688(machine) else 'bm1684x'
    return chip_of(machine)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did.

    Attributes:
        tokens_per_s: Of its answer.
        way: How the chip was driven: 'in place', 'portable', or ''.
        is_card: Whether the chip sits on a card.
    """

    tokens_per_s: float
    way: str = ''
    is_card: bool = False


def why_slower(speed: PublishedSpeed, run: Run, machine: Machine) -> str:
    """Say in one line why a run was slower than published; '' = it was not."""
    if not 0 < run.tokens_per_s < _SLOWER * speed.tokens_per_s:
        return ''
    copies = cause_of_copies(run.way, is_card=run.is_card)
    causes = [*([copies] if copies else []), *causes_of_slowness(machine)]
    reasons = '; '.join(f'{cause.found} -> {cause.remedy}' for cause in causes)
    published = f'{speed.tokens_per_s:.1f} tokens/s on {speed.where or "another board"}'
    if run.way == 'portable' and speed.portable_tokens_per_s:
        published += f' ({speed.portable_tokens_per_s:.1f} with backend portable)'
    return (
        f'{run.tokens_per_s:.1f} tokens/s are slower than the {published}: '
        f'{reasons or "no cause was found; edge-vlm doctor looks at the rest"}'
    )


def _found(entry: ModelEntry, model_dirs: tuple[Path, ...]) -> ModelFiles | None:
    from edge_vlm_ros.core import ModelFileError
    from edge_vlm_ros.models import find_model

    try:
        return find_model(entry.chip, entry.name, model_dirs)
    except ModelFileError:
        return None


def _weight_bytes(files: ModelFiles | None) -> int:
    """Read how many bytes of weights a bmodel holds; 0 = not known."""
    from edge_vlm_ros.core import ModelFileError
    from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel

    path = None if files is None else files.weights.get('model')
    try:
        return 0 if path is None else read_bmodel(path).weight_bytes
    except ModelFileError:
        return 0
