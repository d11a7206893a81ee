"""Which model families there are: the one table of them, and those that other packages bring.

A family is a row here and a module in `families/`. `model_type` of a model's config.json says
which one a model is of.

A family from outside comes like a chip (see `core.chips`), under an entry point of the group
`edge_vlm_ros.families`, named like the family.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.core.installed_rows import BrokenRow, InstalledRows

FAMILY_GROUP = 'edge_vlm_ros.families'


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One family of models.

    Attributes:
        name: 'internvl', ...
        model_types: Values of `model_type` in config.json.
        module: The module with `OPTIONS` and `read`; see `families.read_family`.
    """

    name: str
    model_types: tuple[str, ...]
    module: str


FAMILIES = (
    FamilyRow('idefics3', ('idefics3', 'smolvlm'), 'edge_vlm_ros.families.idefics3'),
    FamilyRow('internvl', ('internvl', 'internvl_chat'), 'edge_vlm_ros.families.internvl'),
    FamilyRow('mllama', ('mllama',), 'edge_vlm_ros.families.mllama'),
    FamilyRow('qwen2_5_vl', ('qwen2_5_vl',), 'edge_vlm_ros.families.qwen2_5_vl'),
    FamilyRow('qwen2_vl', ('qwen2_vl',), 'edge_vlm_ros.families.qwen2_vl'),
    FamilyRow('qwen3_vl', ('qwen3_vl',), 'edge_vlm_ros.families.qwen3_vl'),
)
"""Those of this package."""

_BY_TYPE = {model_type: row for row in FAMILIES for model_type in row.model_types}
_INSTALLED = InstalledRows(FAMILY_GROUP, FamilyRow, (row.name for row in FAMILIES))


def family_of_type(model_type: str) -> FamilyRow | None:
    """Return the family of a `model_type`; None = none that can be used knows it."""
    if model_type in _BY_TYPE:
        return _BY_TYPE[model_type]
    return next((row for row in known_families() if model_type in row.model_types), None)


def is_family(name: str) -> bool:
    """Return whether there is a family of a name; loads none of another package."""
    return any(row.name == name for row in FAMILIES) or name in _INSTALLED.names()


def family_names() -> tuple[str, ...]:
    """Name all families, those of other packages last; loads none of them."""
    return (*(row.name for row in FAMILIES), *_INSTALLED.names())


def known_model_types() -> tuple[str, ...]:
    """Return every `model_type` that a family knows, sorted."""
    return tuple(sorted({kind for row in known_families() for kind in row.model_types}))


def known_families() -> tuple[FamilyRow, ...]:
    """Return every family's row; what is broken is left out, see `broken_families`."""
    return (*FAMILIES, *_INSTALLED.load_all().rows)


def broken_families() -> tuple[BrokenRow, ...]:
    """Return what other packages bring as families and nobody can use, and why."""
    return _INSTALLED.load_all().broken
