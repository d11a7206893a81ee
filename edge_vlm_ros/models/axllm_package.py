"""Packages of the vendor's own runtime, axllm: an axmodel set with a config.json of their own.

That file names the set's files and counts its layers; it says nothing of the model as a family
reads it, and the tokenizer beside it is in a form that axllm alone reads. So such a package is
complete with the tokenizer and config.json of the original model beside it, in `tokenizer/`.

Source: AXERA-TECH/ax-llm, documentation of the model folder's config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import ConfigFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CONFIG = 'config.json'
_TEMPLATE = 'template_filename_axmodel'


@dataclass(frozen=True, slots=True)
class AxllmPackage:
    """What a package's config.json says.

    Attributes:
        folder: Where it lies.
        model: Its name for the model; '' = it has none.
        layers: Pattern of the layers' files, with '{layer}' for the number.
        layer_count: How many there have to be; 0 = it does not say.
        vision: The vision tower's file; '' = it is a language model alone.
        tokenizer: The tokenizer's file, or the address of a server; '' = it names none.
    """

    folder: Path
    model: str
    layers: str
    layer_count: int
    vision: str
    tokenizer: str

    def what_is_missing(self, repositories: Iterable[str]) -> str:
        """Say which tokenizer it lacks, and where that comes from.

        Args:
            repositories: Of known tokenizers, 'owner/name'.
        """
        read_by_axllm = self.tokenizer or 'its tokenizer'
        to = self.folder / 'tokenizer'
        repository = self._repository(repositories)
        if repository:
            get = f"hf download {repository} --include '*.json' --include '*.txt' --local-dir {to}"
        else:
            model = self.model or 'the model'
            get = f"copy those of {model}'s original repository into {to}"
        return (
            f'config.json and tokenizer.json of the original model: this is a package of axllm, '
            f'and {read_by_axllm} is read by axllm alone; {get}'
        )

    def _repository(self, repositories: Iterable[str]) -> str:
        """Choose the repository whose name the model's, or the folder's, begins with."""
        names = [self.model.rpartition('/')[2].lower(), self.folder.name.lower()]
        fitting = [
            each
            for each in repositories
            if any(name.startswith(each.rpartition('/')[2].lower()) for name in names)
        ]
        return max(fitting, key=len, default='')


def read_axllm_package(folder: Path) -> AxllmPackage | None:
    """Read the package that a folder is; None = it is none.

    Raises:
        ModelFileError: config.json is damaged.
    """
    config = ConfigFile.read(folder / _CONFIG, may_be_missing=True)
    template = config.text(_TEMPLATE)
    if not template:
        return None
    return AxllmPackage(
        folder,
        config.text('model_name') or '',
        template.rpartition('/')[2].replace('%d', '{layer}'),
        config.find_count('axmodel_num') or 0,
        (config.text('filename_image_encoder_axmodel') or '').rpartition('/')[2],
        config.text('url_tokenizer_model') or '',
    )
