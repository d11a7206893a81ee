"""What published models' config.json and preprocessor_config.json say, for folders without them.

Sophgo's samples keep tokenizer folders that lack these: their programs have the sizes in code.
Of a model of the catalogue they are known. Only what this package reads of them stands here.

Source: sophgo/sophon-demo, sample/InternVL2/tools/files/*/config.json; of InternVL3 the sizes that
its published builds have (hidden states, layers, rows of the embedding table).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_vlm_ros.core import CONFIG_NAME, PREPROCESSOR_NAME, Completion
from edge_vlm_ros.models.tokenizer_folder import tokenizers_without_config

_SIZE: Final = re.compile(r'\d+b')


def _internvl(template: str, llm: str, hidden: int, layers: int, vocab: int) -> dict[str, Any]:
    """Give the two files of an InternVL model with the tower of 300 million weights."""
    return {
        CONFIG_NAME: {
            'model_type': 'internvl_chat',
            'template': template,
            'downsample_ratio': 0.5,
            'dynamic_image_size': True,
            'force_image_size': 448,
            'max_dynamic_patch': 12,
            'min_dynamic_patch': 1,
            'use_thumbnail': True,
            'llm_config': {
                'model_type': llm,
                'hidden_size': hidden,
                'num_hidden_layers': layers,
                'vocab_size': vocab,
            },
            'vision_config': {'image_size': 448, 'patch_size': 14},
        },
        PREPROCESSOR_NAME: {
            'image_mean': [0.485, 0.456, 0.406],
            'image_std': [0.229, 0.224, 0.225],
        },
    }


_FILES: Final[Mapping[str, Mapping[str, Any]]] = {
    'OpenGVLab/InternVL2-2B': _internvl('internlm2-chat', 'internlm2', 2048, 24, 92553),
    'OpenGVLab/InternVL2-4B': _internvl('phi3-chat', 'phi3', 3072, 32, 32020),
    'OpenGVLab/InternVL2-8B': _internvl('internlm2-chat', 'internlm2', 4096, 32, 92553),
    'OpenGVLab/InternVL3-2B': _internvl('internvl2_5', 'qwen2', 1536, 28, 151674),
    'OpenGVLab/InternVL3-2B-AWQ': _internvl('internvl2_5', 'qwen2', 1536, 28, 151674),
    'OpenGVLab/InternVL3-8B-AWQ': _internvl('internvl2_5', 'qwen2', 3584, 28, 151674),
}
"""By the repository of a model's tokenizer."""


@dataclass(frozen=True, slots=True)
class CompletedFolder:
    """A tokenizer's folder, and what stands in for the files that it lacks.

    Attributes:
        folder: Where the tokenizer lies.
        completion: The rest.
    """

    folder: Path
    completion: Completion


def completion_of(repository: str) -> Completion | None:
    """Return what is known of a tokenizer repository's config files; None = nothing."""
    files = _FILES.get(repository)
    return None if files is None else Completion(f'the catalogue, {repository}', files)


def complete(
    repository: str, folder: Path, others: Iterable[Path] = ()
) -> tuple[CompletedFolder | None, str]:
    """Find a tokenizer without config.json for a model, and complete it where it is known.

    Args:
        repository: Of the model's tokenizer.
        folder: Where the model's weights lie; it is looked in, in its `tokenizer/` and `config/`
            and in any folder directly in it.
        others: More places.

    Returns:
        The folder, and a sentence: which single file is missing where it cannot be completed; '' =
        it was, or there is no such folder.
    """
    found = tokenizers_without_config(folder, others)
    if not found:
        return None, ''
    size = _SIZE.findall(repository.lower())
    named = [place for place in found if size and place.name.lower().endswith(size[-1])]
    fitting = named or found
    if len(fitting) > 1:
        listed = ', '.join(map(str, fitting))
        return None, f'one tokenizer wanted, without a {CONFIG_NAME} beside it lie {listed}'
    completion = completion_of(repository)
    if completion is None:
        origin = f' of {repository}' if repository else " of the model's own repository"
        return None, f'{CONFIG_NAME}{origin}, beside the tokenizer in {fitting[0]}'
    return CompletedFolder(fitting[0], completion), ''
