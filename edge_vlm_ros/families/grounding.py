"""From the numbers that a model writes to pixels of the frame as its camera sent it.

Models count in one of two units. Thousandths of the frame's own sides (InternVL, Qwen2-VL,
Qwen3-VL): the frame is stretched to the grid of tiles or patches, so a thousandth of the grid is a
thousandth of the frame, whatever the tiling. Or pixels of the frame as it was shown (Qwen2.5-VL):
its grid of patches says how large that was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import Detection, Detections
from edge_vlm_ros.text import PlaceForm, find_places

if TYPE_CHECKING:
    from edge_vlm_ros.core import VisionInputs
    from edge_vlm_ros.text import NamedPlace

THOUSANDTHS = 1000


@dataclass(frozen=True, slots=True)
class Grounding:
    """How a family's models name places.

    Attributes:
        form: How they are written.
        patch_px: Their unit: 0 = thousandths of the frame's sides; else pixels of the frame as it
            was shown, whose grid counts patches of so many pixels.
    """

    form: PlaceForm
    patch_px: int = 0

    def detect(self, answer: str, shown: VisionInputs, size: tuple[int, int]) -> Detections:
        """Return the places that an answer about one frame names.

        Args:
            answer: With its template tokens spelled out.
            shown: What was made of the frame; the pixels are not looked at.
            size: The frame's own width and height, pixels.
        """
        places = find_places(answer, self.form)
        extent = self._extent(shown)
        placed = [_in_frame(place, extent, size) for place in places]
        found = tuple(detection for detection in placed if detection is not None)
        return Detections(found, len(places) - len(found))

    def count(self, answer: str) -> int:
        """Count the places that an answer names, possible or not."""
        return len(find_places(answer, self.form))

    def _extent(self, shown: VisionInputs) -> tuple[int, int]:
        """Return how much the model's unit counts from edge to edge, across and down."""
        if not self.patch_px:
            return THOUSANDTHS, THOUSANDTHS
        _, rows, columns = shown.grid
        return columns * self.patch_px, rows * self.patch_px


def _in_frame(
    place: NamedPlace, extent: tuple[int, int], size: tuple[int, int]
) -> Detection | None:
    """Place a box or point in the frame; None = it cannot be there."""
    if len(place.numbers) not in {2, 4}:
        return None
    across, down = (have / counted for have, counted in zip(size, extent, strict=True))
    x, y = place.numbers[:2]
    right, lower = place.numbers[-2:]
    is_box = len(place.numbers) == 4
    if is_box and not (x < right and y < lower):
        return None
    if x < 0 or y < 0 or right > extent[0] or lower > extent[1]:
        return None
    return Detection(place.label, x * across, y * down, (right - x) * across, (lower - y) * down)
