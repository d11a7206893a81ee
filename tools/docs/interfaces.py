"""The generated part of `doc/interfaces.md`: each field and constant, from the interface files."""

from __future__ import annotations

import re
from pathlib import Path

from tools.docs.interface_file import Declaration, InterfaceFile, Section, read_interface
from tools.docs.markdown import escape, table

_FOLDERS = ('srv', 'action', 'msg')


def parts(root: Path) -> dict[str, str]:
    """Return the text of each marked place, by name.

    Args:
        root: The top folder of the tree.
    """
    paths = [path for folder in _FOLDERS for path in sorted((root / folder).iterdir())]
    files = [read_interface(path) for path in paths]
    return {'interfaces': '\n\n'.join(_describe(file, files) for file in files)}


def _describe(file: InterfaceFile, files: list[InterfaceFile]) -> str:
    blocks = [f'### {file.name}', escape(file.purpose)]
    for section in file.sections:
        if section.title:
            blocks.append(f'**{section.title}**')
        twin = _twin(section, file, files)
        blocks += [f'The same as in {twin}.'] if twin else _tables(section, file, files)
    return '\n\n'.join(blocks)


def _twin(section: Section, file: InterfaceFile, files: list[InterfaceFile]) -> str:
    """Return where the same fields are described already: `srv/Ask`, Request; '' = nowhere."""
    for other in files[: files.index(file)]:
        for described in other.sections:
            if described.fields == section.fields and described.constants == section.constants:
                return f'{_link(other.name, other)}, {described.title}'
    return ''


def _tables(section: Section, file: InterfaceFile, files: list[InterfaceFile]) -> list[str]:
    blocks = [
        table(('field', 'type', 'meaning'), (_field_row(field, files) for field in section.fields))
    ]
    if not section.constants:
        return blocks
    for other in files[: files.index(file)]:
        if any(_values(section) <= _values(described) for described in other.sections):
            where = _link(other.name, other)
            return [*blocks, f'The constants are those of the same names in {where}.']
    for group in section.constants:
        rows = [(f'`{c.name}`', c.value, escape(c.meaning)) for c in group.declarations]
        blocks += [escape(group.caption), table(('constant', 'value', 'meaning'), rows)]
    return blocks


def _values(section: Section) -> set[tuple[Declaration, ...]]:
    return {group.declarations for group in section.constants}


def _field_row(field: Declaration, files: list[InterfaceFile]) -> tuple[str, str, str]:
    own = next((f for f in files if f.name == f'msg/{re.sub(r"[^A-Za-z]", "", field.type)}'), None)
    kind = _link(field.type, own) if own else f'`{field.type}`'
    return f'`{field.name}`', kind, escape(field.meaning)


def _link(text: str, file: InterfaceFile) -> str:
    # GitHub's anchor of a heading: lower case, without the slash.
    return f'[`{text}`](#{file.name.replace("/", "").lower()})'
