"""What training minimises: the dense loss of sight, the tracks of motion, the answers."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from edge_vlm_ros.demo.world import COLOURS, SHAPES
from tools.demo_model import codes, data
from tools.demo_model.model import LanguageModel
from tools.demo_model.packing import Batch
from tools.demo_model.size import ModelSize
from tools.demo_model.teach import code_targets

MAP_CLASSES: Final = 1 + len(COLOURS) + 1 + len(SHAPES)


class DenseHead(nn.Module):
    """Helper of training: colour and shape of the four map cells of each patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.Linear(width, 4 * MAP_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of colours, (n, patches, 4, 7), and of shapes."""
        cells = self.cells(patches).unflatten(-1, (4, MAP_CLASSES)).float()
        colours = 1 + len(COLOURS)
        return cells[..., :colours], cells[..., colours:]


class TrackHead(nn.Module):
    """Helper of training: what the language model must find out about motion, early on.

    After the second layer, the image places tell how each thing has moved since the first frame.
    """

    layer = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tracks = nn.Linear(width, codes.TRACK)
        nn.init.zeros_(self.tracks.weight)
        nn.init.zeros_(self.tracks.bias)

    def loss(self, watched: list[Tensor], tracks: Tensor) -> Tensor:
        """Return the loss per frame."""
        found = self.tracks(self.norm(watched[self.layer])).float()
        frames = tracks.shape[0] * tracks.shape[1] / ModelSize().tokens
        total: Tensor = (found - tracks).square().sum() / frames
        return total


class Sight:
    """The dense loss: visual tokens against their code, patches against the instance map."""

    def __init__(self, width: int) -> None:
        self._directions = torch.from_numpy(codes.directions(width))

    def loss(
        self, head: DenseHead, patches: Tensor, tokens: Tensor, pictures: list[data.Picture]
    ) -> Tensor:
        """Return the loss per frame."""
        code = tokens.float() @ self._directions.T
        error = (code - code_targets(pictures)).square().sum() / (2 * len(pictures))
        colour, shape = data.map_labels(pictures)
        colours, shapes = head(patches)
        return (
            error
            + fn.cross_entropy(colours.flatten(0, 2), colour.flatten(), ignore_index=-1)
            + 2 * fn.cross_entropy(shapes.flatten(0, 2), shape.flatten(), ignore_index=-1)
        )

    def tokens(self, code: Tensor) -> Tensor:
        """Return visual tokens that carry the code exactly."""
        return code.flatten(1, -2) @ self._directions


def autocast() -> torch.autocast:
    """Return the context for bfloat16 on CPU."""
    return torch.autocast('cpu', dtype=torch.bfloat16)


def answer_loss(
    model: LanguageModel, batch: Batch, image: Tensor, watched: list[Tensor] | None = None
) -> Tensor:
    """Return the cross entropy of the answer tokens."""
    logits = model(batch.packed, image, watched)
    return fn.cross_entropy(logits.float(), batch.wanted_ids)
