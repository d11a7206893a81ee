"""What folders of InternVL models have in common."""

from __future__ import annotations

from typing import Any, Final

SPECIAL_TOKENS: Final = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<img>',
    '</img>',
    '<IMG_CONTEXT>',
)
"""Of InternVL3's template."""


def preprocessor_config(image_px: int, *, crops: bool) -> dict[str, Any]:
    """Make preprocessor_config.json: bicubic, with ImageNet's mean and standard deviation.

    Args:
        image_px: Side of a tile.
        crops: Whether the file asks for a centre crop, as OpenGVLab's do; without one a frame is
            squashed.
    """
    return {
        'crop_size': image_px,
        'do_center_crop': crops,
        'do_normalize': True,
        'do_resize': True,
        'feature_extractor_type': 'CLIPFeatureExtractor',
        'image_mean': [0.485, 0.456, 0.406],
        'image_std': [0.229, 0.224, 0.225],
        'resample': 3,
        'size': image_px,
    }
