"""What the published processors make of pictures: golden arrays for test/families.

    python -m support.reference.golden test/families/data

writes qwen2_vl.npz, qwen2_5_vl.npz, qwen3_vl.npz and mllama.npz. Needs transformers with torch,
Pillow before 13 (the models were trained with its order of passes) and torchvision, which
transformers asks for to cut videos. The versions stand in the files. Nothing is downloaded: the
processors are made from the values of the published preprocessor_config.json.

Which pictures, and what is kept of the arrays: golden_cases.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
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
    QWEN2_5_VL_PROMPTS,
    QWEN2_VL_IMAGES,
    QWEN2_VL_VIDEOS,
    QWEN3_VL_OPENING,
    QWEN3_VL_PROMPTS,
    QWEN_CLOSING,
    QWEN_OPENING,
    QWEN_QUESTION,
    TABLE_GRIDS,
    WINDOW_GRIDS,
    Shown,
    picture,
    summary,
)

_VIDEO_MARKS = '<|vision_start|><|video_pad|><|vision_end|>'


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


def _qwen2_5_vl(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    from transformers.vision_utils import get_vision_window_index

    from support.reference.qwen2_5_vl import rope_positions, template_tokenizer

    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped there
        tokenizer_object=template_tokenizer()
    )
    normal = {'image_mean': CLIP['mean'], 'image_std': CLIP['std']}
    processor: Any = Qwen2_5_VLProcessor(  # type: ignore[no-untyped-call]  # as above
        Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12845056, **normal),
        tokenizer,
        Qwen2VLVideoProcessor(
            size={'shortest_edge': 28 * 28, 'longest_edge': 602112},
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            **normal,
        ),
    )
    arrays: dict[str, NDArray[Any]] = {}
    for number, shown in enumerate(QWEN2_5_VL_PROMPTS):
        made = processor(**_published_inputs(shown), return_tensors='pt')
        arrays[f'prompt{number}_ids'] = made['input_ids'][0].numpy()
        positions, _ = rope_positions(made, tokens_per_second=2)
        arrays[f'prompt{number}_positions'] = positions
        for kind in ('pixel_values', 'pixel_values_videos'):
            for key, value in summary(made[kind].numpy()).items() if kind in made else ():
                arrays[f'prompt{number}_{kind}_{key}'] = value
    for number, grid in enumerate(WINDOW_GRIDS):
        order, ends = get_vision_window_index(torch.tensor([grid]), 2, 112, 14)
        arrays[f'windows{number}_order'] = order.numpy()
        arrays[f'windows{number}_ends'] = ends.numpy()
    _save(folder / 'qwen2_5_vl.npz', arrays)


def _qwen3_vl(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    from support.reference.qwen2_5_vl import template_tokenizer
    from support.reference.qwen3_vl import rope_positions

    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped there
        tokenizer_object=template_tokenizer()
    )
    normal = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'patch_size': 16}
    processor: Any = Qwen3VLProcessor(  # type: ignore[no-untyped-call]  # as above
        Qwen2VLImageProcessorPil(min_pixels=1024, max_pixels=16777216, **normal),
        tokenizer,
        Qwen3VLVideoProcessor(
            size={'shortest_edge': 32 * 32, 'longest_edge': 25165824},
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            **normal,
        ),
    )
    arrays: dict[str, NDArray[Any]] = {}
    for number, shown in enumerate(QWEN3_VL_PROMPTS):
        given = _published_inputs(shown, QWEN3_VL_OPENING)
        # The release that published the model replaced the template's marks around a video, too;
        # later ones leave them around all of it, which the model was not trained with.
        given['text'] = [text.replace(_VIDEO_MARKS, '<|video_pad|>') for text in given['text']]
        made = processor(**given, return_tensors='pt')
        arrays[f'prompt{number}_ids'] = made['input_ids'][0].numpy()
        arrays[f'prompt{number}_positions'] = rope_positions(made)
        for kind in ('pixel_values', 'pixel_values_videos'):
            for key, value in summary(made[kind].numpy()).items() if kind in made else ():
                arrays[f'prompt{number}_{kind}_{key}'] = value
    for number, (rows, columns, side) in enumerate(TABLE_GRIDS):
        corners, weights = get_vision_interpolation_indices_and_weights(
            torch.tensor([[1, rows, columns]]),
            num_grid_per_side=side,
            align_corners=True,
            spatial_merge_size=2,
        )
        arrays[f'table{number}_corners'] = corners.numpy()
        arrays[f'table{number}_weights'] = weights.numpy()
    _save(folder / 'qwen3_vl.npz', arrays)


def _published_inputs(shown: Sequence[Shown], opening: str = QWEN_OPENING) -> dict[str, Any]:
    """Write a prompt about images and clips as the chat template renders it."""
    marks = ''.join(
        f'<|vision_start|><|{"video" if each.frames else "image"}_pad|><|vision_end|>'
        for each in shown
    )
    given: dict[str, Any] = {'text': [f'{opening}{marks}{QWEN_QUESTION}{QWEN_CLOSING}']}
    images = [each for each in shown if not each.frames]
    clips = [each for each in shown if each.frames]
    if images:
        given['images'] = [Image.fromarray(each.pictures()[0]) for each in images]
    if clips:
        given['videos'] = [
            torch.from_numpy(np.stack(each.pictures()).transpose(0, 3, 1, 2).copy())
            for each in clips
        ]
        given['video_metadata'] = [
            {
                'fps': each.fps,
                'total_num_frames': each.frames,
                'frames_indices': list(range(each.frames)),
            }
            for each in clips
        ]
    return given


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
    for make in (_qwen2_vl, _qwen2_5_vl, _qwen3_vl, _mllama):
        make(Path(sys.argv[1]))
