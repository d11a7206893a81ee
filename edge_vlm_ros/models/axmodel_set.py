"""Find the files of an axmodel set: one file a decoder layer, a head, a table, a vision tower.

Layers are named `<prefix>_p<chunk>_l<i>_together.axmodel` and lie in one folder, with
`<prefix>_post.axmodel` and the embedding table. The published repositories keep that folder below
their root (`internvl3_2b_axmodel/`) and the vision tower in it, beside it (`vit_axmodel/`) or
under other names, so the folder that is named may be the set's own or one above.

Where several sets lie below one folder, those whose folder is named after another chip
(`internvl2_5_1b_364_ax630c/`, `...-AX620E/`) are left alone. Of what is left the one with most
layers counts; of those, builds for prefill chunks of several sizes, the one with the smallest: it
takes the longest prompts. What is alike even then has to be named.

Source: AXERA-TECH/InternVL3-2B.axera (README), the file lists of the Hugging Face repositories
AXERA-TECH/InternVL3-2B, InternVL3-1B and InternVL2_5-1B as published guides quote them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

SUFFIX = '.axmodel'
EMBEDDINGS = ('model.embed_tokens.weight.npy', 'model.embed_tokens.weight.bfloat16.bin')
DEEPEST = 3
"""Folders below the named one that are looked into; the published repositories need one."""

_NAMED_AFTER: Mapping[str, tuple[str, ...]] = {
    'ax650': ('ax650', 'ax8850'),
    'ax630c': ('ax630c', 'ax620e', 'ax620q'),
}
"""What the folders of sets for a chip are named after: the chip, its family, boards."""

_LAYER = re.compile(
    r'(?P<prefix>.+)_p(?P<chunk>[0-9]{1,6})_l(?P<layer>[0-9]{1,3})_together\.axmodel'
)
_POST = re.compile(r'.+_post\.axmodel')
_VISION = re.compile(r'vit|vision|image_?encoder', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WantedSet:
    """Which set is wanted where there may be several.

    Attributes:
        layers: Pattern of the layer files, with '{layer}' for the number; '' = any.
        layer_count: How many there have to be; 0 = as many as are there.
        vision: Path or pattern of the vision tower, relative to the named folder; '' = any.
        chip: What the set is for; '' = any chip.
    """

    layers: str = ''
    layer_count: int = 0
    vision: str = ''
    chip: str = ''


@dataclass(slots=True)
class SetSearch:
    """What was found, and what was not.

    Attributes:
        weights: Path by part: 'layers.0' ..., 'post', 'embed_tokens', 'vision_encoder'.
        missing: Names of the files that are not there.
        conflicts: Sentences about files that do not belong together.
    """

    weights: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Build:
    """The layer files of one folder that come from one build."""

    folder: Path
    prefix: str
    chunk: int
    layers: dict[int, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.prefix}_p{self.chunk} ({len(self.layers)} layers)'

    def layer_name(self, layer: int) -> str:
        return f'{self.prefix}_p{self.chunk}_l{layer}_together{SUFFIX}'


def search_axmodel_set(root: Path, wanted: WantedSet | None = None) -> SetSearch:
    """Look for a set in a folder and below; of several sets the one with most layers counts."""
    wanted = wanted or WantedSet()
    search = SetSearch()
    files = _of_chip(list(_axmodels(root)), root, wanted.chip)
    build = _choose_build(search, root, _builds(files, root, wanted.layers))
    if build is not None:
        _take_build(search, build, wanted.layer_count)
    elif not search.conflicts:
        search.missing += _wanted_names(wanted)
    if build is not None or not search.conflicts:
        _take_vision(search, root, files, build, wanted.vision)
    return search


def holds_axmodels(folder: Path) -> bool:
    """Return whether a folder holds an axmodel file, at any depth that is looked into."""
    return any(True for _ in _axmodels(folder))


def _axmodels(root: Path) -> Iterable[Path]:
    """List the axmodel files in and below a folder, hidden folders left out."""
    for folder, below, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        below[:] = sorted(name for name in below if not name.startswith('.'))
        if depth >= DEEPEST:
            below.clear()
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(SUFFIX))


def _of_chip(files: list[Path], root: Path, chip: str) -> list[Path]:
    """Leave out files in folders that are named after another chip, if others are there."""
    own = _NAMED_AFTER.get(chip, ())
    others = [tag for name, tags in _NAMED_AFTER.items() for tag in tags if name != chip]
    if not own:
        return files

    def is_of_another(file: Path) -> bool:
        folders = file.parent.relative_to(root).as_posix().lower()
        return any(tag in folders for tag in others) and not any(tag in folders for tag in own)

    kept = [file for file in files if not is_of_another(file)]
    has_layers = any(_LAYER.fullmatch(file.name) for file in kept)
    return kept if has_layers else files


def _builds(files: Iterable[Path], root: Path, wanted: str) -> list[_Build]:
    builds: dict[tuple[Path, str, int], _Build] = {}
    pattern = wanted.replace('{layer}', '*')
    for file in files:
        match = _LAYER.fullmatch(file.name)
        if match is None or (pattern and not _is_like(file.relative_to(root), pattern)):
            continue
        key = file.parent, match['prefix'], int(match['chunk'])
        build = builds.setdefault(key, _Build(*key))
        build.layers[int(match['layer'])] = file
    return list(builds.values())


def _is_like(path: Path, pattern: str) -> bool:
    """Return whether a path, or its end, is as the pattern says."""
    text = path.as_posix()
    return fnmatchcase(text, pattern) or fnmatchcase(text, f'*/{pattern}')


def _choose_build(search: SetSearch, root: Path, builds: list[_Build]) -> _Build | None:
    """Take the build with most layers; several that could be meant are a conflict."""
    if not builds:
        return None
    most = max(len(build.layers) for build in builds)
    largest = [build for build in builds if len(build.layers) == most]
    if len({build.folder for build in largest}) == len(largest):
        smallest = min(build.chunk for build in largest)
        largest = [build for build in largest if build.chunk == smallest]
    chosen = largest[0]
    mixed = [build for build in builds if build.folder == chosen.folder]
    if len(mixed) > 1:
        listed = ', '.join(map(str, mixed))
        search.conflicts.append(f'several builds in one folder, {chosen.folder}: {listed}')
        return None
    if len(largest) > 1:
        listed = ', '.join(f'{_below(build.folder, root)} ({build})' for build in largest)
        search.conflicts.append(f'several sets below {root}, name one: {listed}')
        return None
    return chosen


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _take_build(search: SetSearch, build: _Build, layer_count: int) -> None:
    last = max(build.layers)
    if layer_count and last >= layer_count:
        search.conflicts.append(
            f'{build.folder} holds layers 0 to {last}, the model has {layer_count}'
        )
    for layer in range(max(last + 1, layer_count)):
        if layer in build.layers:
            search.weights[f'layers.{layer}'] = build.layers[layer]
        else:
            search.missing.append(build.layer_name(layer))
    post = build.folder / f'{build.prefix}_post{SUFFIX}'
    tables = [build.folder / name for name in EMBEDDINGS if (build.folder / name).is_file()]
    if post.is_file():
        search.weights['post'] = post
    else:
        search.missing.append(post.name)
    if tables:
        search.weights['embed_tokens'] = tables[0]
    else:
        search.missing.append(' or '.join(EMBEDDINGS))


def _wanted_names(wanted: WantedSet) -> list[str]:
    """Name what a folder without any layer file lacks."""
    pattern = wanted.layers or '<prefix>_p<chunk>_l{layer}_together.axmodel'
    if wanted.layer_count:
        layers = [pattern.replace('{layer}', str(i)) for i in range(wanted.layer_count)]
    else:
        layers = [pattern.replace('{layer}', '<i>')]
    prefix = re.split(r'_p[\d*<]', Path(pattern).name)[0]
    return [*layers, f'{prefix}_post{SUFFIX}', ' or '.join(EMBEDDINGS)]


def _take_vision(
    search: SetSearch, root: Path, files: list[Path], build: _Build | None, wanted: str
) -> None:
    """Take the vision tower: the one that is named, else the one that looks like one."""
    if wanted and '*' not in wanted:
        found = [root / wanted] if (root / wanted).is_file() else []
        found = found or [file for file in files if _is_like(file.relative_to(root), wanted)]
    elif wanted:
        found = [file for file in files if _is_like(file.relative_to(root), wanted)]
    else:
        found = [file for file in files if _is_vision(file, root)]
    if not found and not wanted and build is not None and build.folder == root:
        found = _vision_beside(root)
    own = [file for file in found if build is not None and file.parent == build.folder]
    found = own if len(own) == 1 else found
    if len(found) == 1:
        search.weights['vision_encoder'] = found[0]
    elif found:
        names = ', '.join(sorted(str(file) for file in found))
        search.conflicts.append(f'several files could be the vision tower: {names}')
    else:
        name = wanted or '*vit*.axmodel or image_encoder.axmodel'
        search.missing.append(f'{name} (the vision tower)')


def _is_vision(file: Path, root: Path) -> bool:
    if _LAYER.fullmatch(file.name) or _POST.fullmatch(file.name):
        return False
    if _VISION.search(file.stem):
        return True
    return file.parent != root and bool(_VISION.search(file.parent.name))


def _vision_beside(set_folder: Path) -> list[Path]:
    """List the vision towers of `vit_axmodel/` and the like beside a set's own folder."""
    beside = sorted(set_folder.resolve().parent.glob('*vit*'))
    return [file for folder in beside for file in sorted(folder.glob(f'*{SUFFIX}'))]


def wanted_set(parts: Mapping[str, str], layer_count: int, chip: str) -> WantedSet:
    """Make a wanted of a catalogue entry's paths by part."""
    return WantedSet(parts.get('layers', ''), layer_count, parts.get('vision_encoder', ''), chip)
