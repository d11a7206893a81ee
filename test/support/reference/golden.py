"""What the published processors make of pictures: golden arrays for test/families.

    python -m support.reference.golden test/families/data

writes qwen2_vl.npz and mllama.npz. Needs transformers with torch, Pillow before 13 (the models
were trained with its order of passes) and torchvision, which transformers asks for to cut videos.
The versions stand in the files. Nothing is downloaded: the processors are made from the values of
the published preprocessor_config.json.

Which pictures, and what is kept of the arrays: golden_cases.py.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from support.reference.golden_cases import (
    CLIP,
    MLLAMA_IMAGES,
    QWEN2_VL_IMAGES,
    QWEN2_VL_VIDEOS,
    picture,
    summary,
)


def _save(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    names = ('transformers', 'torch', 'pillow', 'numpy')
    versions = json.dumps({name: version(name) for name in names})
    entries: dict[str, Any] = {'versions': np.array(versions), **arrays}
    np.savez_compressed(file, **entries)


def _qwen2_vl(folder: Path) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    arrays: dict[str, NDArray[Any]] = {}
    for number, (width, height, fewest, most) in enumerate(QWEN2_VL_IMAGES):
        processor = Qwen2VLImageProcessorPil(
            min_pixels=fewest, max_pixels=most, image_mean=CLIP['mean'], image_std=CLIP['std']
        )
        image = Image.fromarray(picture(width, height, number))
        made = processor(images=[image], return_tensors='np')
        arrays[f'image{number}_grid'] = made['image_grid_thw'][0]
        for key, value in summary(made['pixel_values']).items():
            arrays[f'image{number}_{key}'] = value
    for number, (frames, width, height) in enumerate(QWEN2_VL_VIDEOS):
        video_processor = Qwen2VLVideoProcessor(
            size={'shortest_edge': 28 * 28, 'longest_edge': 602112},
            image_mean=CLIP['mean'],
            image_std=CLIP['std'],
        )
        shown = np.stack([picture(width, height, seed) for seed in range(frames)])
        clip = torch.from_numpy(np.ascontiguousarray(shown.transpose(0, 3, 1, 2)))
        made = video_processor(
            videos=[clip],
            return_tensors='np',
            do_sample_frames=False,
            cap_pixels_per_frame=False,
        )
        arrays[f'video{number}_grid'] = np.asarray(made['video_grid_thw'])[0]
        for key, value in summary(np.asarray(made['pixel_values_videos'])).items():
            arrays[f'video{number}_{key}'] = value
    _save(folder / 'qwen2_vl.npz', arrays)


def _declare_torchvision() -> torch.library.Library:
    """Let torchvision load beside any build of torch.

    Its compiled part knows one build only; nothing of it is used here, but without this
    declaration torchvision does not load.
    """
    library = torch.library.Library(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        'torchvision', 'FRAGMENT'
    )
    for name in ('nms', 'qnms'):
        signature = f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
        library.define(signature)  # type: ignore[no-untyped-call]  # the same
    return library


def _mllama(folder: Path) -> None:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    arrays: dict[str, NDArray[Any]] = {}
    for number, (width, height, tile) in enumerate(MLLAMA_IMAGES):
        processor = MllamaImageProcessorPil(
            size={'height': tile, 'width': tile},
            max_image_tiles=4,
            image_mean=CLIP['mean'],
            image_std=CLIP['std'],
        )
        image = Image.fromarray(picture(width, height, number))
        made = processor(images=[image], return_tensors='np')
        arrays[f'image{number}_id'] = made['aspect_ratio_ids'][0]
        arrays[f'image{number}_mask'] = made['aspect_ratio_mask'][0, 0]
        for key, value in summary(made['pixel_values'][0, 0]).items():
            arrays[f'image{number}_{key}'] = value
    _save(folder / 'mllama.npz', arrays)


if __name__ == '__main__':
    DECLARED = _declare_torchvision()  # kept: it ends with this object
    _qwen2_vl(Path(sys.argv[1]))
    _mllama(Path(sys.argv[1]))
