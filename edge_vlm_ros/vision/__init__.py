"""Frames to pixels: what a camera sent becomes what a vision tower takes.

Names are looked up when first used. The ROS process keeps frames (`FrameBuffer`) and chooses some
(`choose_frames`) but never looks at pixels, so it must not pay for OpenCV: importing this room, or
`frame_buffer` and `frame_sampler` in it, loads no cv2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vlm_ros.vision.canvas import (
        Canvas,
        aspect_ratio_id,
        aspect_ratio_mask,
        choose_canvas,
    )
    from edge_vlm_ros.vision.change import Thumbnail, has_changed, thumbnail
    from edge_vlm_ros.vision.colour import decode_frame, decode_image
    from edge_vlm_ros.vision.first_look import check_at_first_look
    from edge_vlm_ros.vision.frame_buffer import BufferStats, FrameBuffer
    from edge_vlm_ros.vision.frame_sampler import ChosenFrames, choose_frames
    from edge_vlm_ros.vision.light import is_dark
    from edge_vlm_ros.vision.limits import DEPTH_ENCODINGS, MAX_PIXELS
    from edge_vlm_ros.vision.media import MediaFrame, MediaReader, open_media
    from edge_vlm_ros.vision.normalise import Normaliser
    from edge_vlm_ros.vision.patches import (
        Patching,
        cut_patches,
        patch_places,
        smart_size,
        table_places,
    )
    from edge_vlm_ros.vision.preprocess import (
        pixels_for_canvas,
        pixels_for_grid,
        pixels_for_tile,
    )
    from edge_vlm_ros.vision.raw_layout import SUPPORTED_ENCODINGS
    from edge_vlm_ros.vision.resize import (
        Resizer,
        resize_exact,
        resize_exact_bilinear,
        resize_exact_lanczos,
        resize_fast,
    )
    from edge_vlm_ros.vision.tiles import TileGrid, Tiling, cut_tiles, dynamic_tiles
    from edge_vlm_ros.vision.windows import window_order

_MODULES = {
    'BufferStats': 'frame_buffer',
    'Canvas': 'canvas',
    'ChosenFrames': 'frame_sampler',
    'DEPTH_ENCODINGS': 'limits',
    'FrameBuffer': 'frame_buffer',
    'MAX_PIXELS': 'limits',
    'MediaFrame': 'media',
    'MediaReader': 'media',
    'Normaliser': 'normalise',
    'Patching': 'patches',
    'Resizer': 'resize',
    'SUPPORTED_ENCODINGS': 'raw_layout',
    'Thumbnail': 'change',
    'TileGrid': 'tiles',
    'Tiling': 'tiles',
    'aspect_ratio_id': 'canvas',
    'aspect_ratio_mask': 'canvas',
    'check_at_first_look': 'first_look',
    'choose_canvas': 'canvas',
    'choose_frames': 'frame_sampler',
    'cut_patches': 'patches',
    'cut_tiles': 'tiles',
    'decode_frame': 'colour',
    'decode_image': 'colour',
    'dynamic_tiles': 'tiles',
    'has_changed': 'change',
    'is_dark': 'light',
    'open_media': 'media',
    'patch_places': 'patches',
    'pixels_for_canvas': 'preprocess',
    'pixels_for_grid': 'preprocess',
    'pixels_for_tile': 'preprocess',
    'resize_exact': 'resize',
    'resize_exact_bilinear': 'resize',
    'resize_exact_lanczos': 'resize',
    'resize_fast': 'resize',
    'smart_size': 'patches',
    'table_places': 'patches',
    'thumbnail': 'change',
    'window_order': 'windows',
}

__all__ = [
    'DEPTH_ENCODINGS',
    'MAX_PIXELS',
    'SUPPORTED_ENCODINGS',
    'BufferStats',
    'Canvas',
    'ChosenFrames',
    'FrameBuffer',
    'MediaFrame',
    'MediaReader',
    'Normaliser',
    'Patching',
    'Resizer',
    'Thumbnail',
    'TileGrid',
    'Tiling',
    'aspect_ratio_id',
    'aspect_ratio_mask',
    'check_at_first_look',
    'choose_canvas',
    'choose_frames',
    'cut_patches',
    'cut_tiles',
    'decode_frame',
    'decode_image',
    'dynamic_tiles',
    'has_changed',
    'is_dark',
    'open_media',
    'patch_places',
    'pixels_for_canvas',
    'pixels_for_grid',
    'pixels_for_tile',
    'resize_exact',
    'resize_exact_bilinear',
    'resize_exact_lanczos',
    'resize_fast',
    'smart_size',
    'table_places',
    'thumbnail',
    'window_order',
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{module}'), name)
