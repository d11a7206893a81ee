"""Read .msg, .srv and .action files with their comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SECTIONS = {
    '.msg': ('',),
    '.srv': ('Request', 'Response'),
    '.action': ('Goal', 'Result', 'Feedback'),
}
_DECLARATION = re.compile(
    r'(?P<type>\S+)\s+(?P<name>\w+)(?:=(?P<value>\S+))?\s*#\s*(?P<meaning>.*)'
)
_CONTINUATION = re.compile(r'\s+#\s*(?P<meaning>.*)')


@dataclass(frozen=True, slots=True)
class Declaration:
    """One field or constant.

    Attributes:
        type: As in the file, such as `float32` or `sensor_msgs/Image[]`.
        name: Of the field or constant.
        value: Of a constant; '' = a field.
        meaning: Its comment, on one line.
    """

    type: str
    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Group:
    """Declarations that follow each other under one comment.

    Attributes:
        caption: The comment above them; '' = none.
        declarations: In the order of the file.
    """

    caption: str
    declarations: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What stands between two `---`.

    Attributes:
        title: 'Request', 'Goal', ...; '' = a message's only section.
        constants: By the comment above them.
        fields: In the order of the file.
    """

    title: str
    constants: tuple[Group, ...]
    fields: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True)
class InterfaceFile:
    """One file.

    Attributes:
        name: Its type without the package, such as 'msg/Answer'.
        purpose: The comment at its beginning.
        sections: One for a message, two for a service, three for an action.
    """

    name: str
    purpose: str
    sections: tuple[Section, ...]


def read_interface(path: Path) -> InterfaceFile:
    """Read one file.

    Raises:
        ValueError: A line is neither a commented declaration nor a comment, or the file has not
            the sections of its kind.
    """
    purpose, _, body = path.read_text(encoding='utf-8').partition('\n\n')
    texts = re.split(r'^---$', body, flags=re.MULTILINE)
    titles = _SECTIONS[path.suffix]
    if len(texts) != len(titles):
        raise ValueError(f'{path}: {len(texts)} sections, not {len(titles)}')
    return InterfaceFile(
        name=f'{path.parent.name}/{path.stem}',
        purpose=_comment(purpose.splitlines()),
        sections=tuple(
            _read_section(path, title, text) for title, text in zip(titles, texts, strict=True)
        ),
    )


def _read_section(path: Path, title: str, text: str) -> Section:
    groups: list[tuple[list[str], list[Declaration]]] = [([], [])]
    for line in text.splitlines():
        caption, declarations = groups[-1]
        if not line.strip():
            groups.append(([], []))
        elif line.startswith('#'):
            caption.append(line)
        elif declarations and (match := _CONTINUATION.fullmatch(line)):
            declarations.append(_continued(declarations.pop(), match['meaning']))
        else:
            declarations.append(_read_declaration(path, line))
    read = [Group(_comment(caption), tuple(found)) for caption, found in groups if found]
    return Section(
        title=title,
        constants=tuple(group for group in read if group.declarations[0].value),
        fields=tuple(d for group in read for d in group.declarations if not d.value),
    )


def _read_declaration(path: Path, line: str) -> Declaration:
    match = _DECLARATION.fullmatch(line)
    if match is None:
        raise ValueError(f'{path}: neither a commented field or constant nor a comment: {line!r}')
    return Declaration(match['type'], match['name'], match['value'] or '', match['meaning'])


def _continued(first: Declaration, more: str) -> Declaration:
    return Declaration(first.type, first.name, first.value, f'{first.meaning} {more}')


def _comment(lines: list[str]) -> str:
    return ' '.join(line.lstrip('#').strip() for line in lines)
