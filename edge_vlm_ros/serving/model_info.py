"""Which model to serve, and what it turned out to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_vlm_ros.core import Answer, EngineLimits


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model on which chip.

    Attributes:
        chip: 'cpu', 'scripted', 'bm1684x', ...
        model: Catalogue name or path; '' = the chip's default.
        device_ids: Devices of that kind; empty = the first one.
        model_dirs: Folders to look in before the usual ones.
        options: The family's and the engine's own, by name; each of them has a type for its own.
    """

    chip: str = 'cpu'
    model: str = ''
    device_ids: tuple[int, ...] = ()
    model_dirs: tuple[Path, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What one work item of each kind costs on this chip, milliseconds; 0 = not measured.

    Attributes:
        prepare_ms: One frame from camera bytes to vision inputs.
        encode_ms: One frame through vision tower and projector.
        prefill_ms: One prefill: the largest piece of a short prompt with one frame.
        prefill_tokens: Tokens in that piece.
        decode_ms: One answer token, its choice included.
    """

    prepare_ms: float = 0.0
    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    prefill_tokens: int = 0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The model that answers, whatever runs it.

    Attributes:
        model: Catalogue name or path.
        chip: 'cpu', 'bm1684x', ...
        max_images: Images in one prompt at most; 0 = as many as the context holds.
        usual_frames: Frames of a clip to show at most unless more are asked for; 0 = as many as
            are wanted.
        load_s: Seconds from the start of loading to ready.
    """

    model: str
    chip: str
    max_images: int = 0
    usual_frames: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipModelInfo(ModelInfo):
    """A model that is loaded on a chip of this machine.

    Attributes:
        limits: Read from the model's files.
        costs: Measured at start-up.
        way: How the chip is driven where there are several ways, in the engine's words ('in
            place', 'portable'); '' = there is one.
    """

    limits: EngineLimits
    costs: StageCosts = StageCosts()
    way: str = ''


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModelInfo(ModelInfo):
    """A model that servers answer with: frames leave this machine.

    Attributes:
        servers: Their addresses.
        context_tokens: What it holds; 0 = not known.
    """

    servers: tuple[str, ...]
    context_tokens: int = 0


def signed(answer: Answer, info: ModelInfo | None) -> Answer:
    """Return an answer with the name of the model that is loaded, and its chip.

    For answers that are made where the model is not: it died, or was never asked.

    Args:
        answer: How a question failed.
        info: None where no model has been loaded yet; both names stay empty then.
    """
    return answer if info is None else replace(answer, model=info.model, chip=info.chip)
