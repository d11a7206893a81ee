"""The sizes of the demo model; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Every size of the model."""

    image_px: int = 112
    patch_px: int = 14
    vision_width: int = 192
    vision_layers: int = 6
    vision_head: int = 64
    vision_mlp: int = 768
    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 3
    mlp: int = 512
    vocabulary: int = 1024
    rope_theta: float = 10000.0
    rms_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Return the patches along one side."""
        return self.image_px // self.patch_px

    @property
    def tokens(self) -> int:
        """Return the visual tokens of one frame."""
        return (self.grid // 2) ** 2

    @property
    def head(self) -> int:
        """Return the width of one attention head of the language model."""
        return self.width // self.heads
