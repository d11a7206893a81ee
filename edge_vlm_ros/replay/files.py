"""The files of a replay: watches, questions, labels, a baseline; JSON or YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import BadRequestError, ModelFileError, read_json_file
from edge_vlm_ros.core.bounded_yaml import read_yaml_file
from edge_vlm_ros.watch import WatchSpec, spec_of

ARROW = '->'


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """A question that a replay asks at a moment.

    Attributes:
        at_s: From the recording's beginning, seconds.
        question: What is asked.
        choices: Answers to choose from; none = free text.
        expect: The true answer; '' = not known.
        last_seconds: Frames from this long ago; 0 = the newest alone.
    """

    at_s: float
    question: str
    choices: tuple[str, ...] = ()
    expect: str = ''
    last_seconds: float = 0.0


def read_values(path: Path) -> Any:
    """Read a JSON or YAML file.

    Raises:
        BadRequestError: It cannot be read.
    """
    try:
        return read_json_file(path) if path.suffix == '.json' else read_yaml_file(path)
    except ModelFileError as error:
        raise BadRequestError(error.message) from error


def watches_of(text: str) -> list[WatchSpec]:
    """Return the watches that a word of the command line names.

    Args:
        text: A file with a mapping `watches` of name to fields, as a parameter file of the node
            has it; or `NAME: QUESTION -> ANSWER`, where ANSWER (yes, where it is left out) means
            the event.

    Raises:
        BadRequestError: It is neither, or a watch makes no sense.
    """
    path = Path(text).expanduser()
    if path.suffix in {'.json', '.yaml', '.yml'}:
        watches = _find_watches(read_values(path))
        if not watches:
            raise BadRequestError(f'{path}: no watches: a mapping `watches` is missing')
        return [spec_of({'name': str(name), **fields}) for name, fields in watches.items()]
    name, colon, rest = text.partition(':')
    if not colon:
        raise BadRequestError(
            f'a watch is a .yaml or .json file or "NAME: QUESTION -> ANSWER", not {text!r}'
        )
    question, _, answer = rest.partition(ARROW)
    when = {'when': [answer.strip()]} if answer.strip() else {}
    return [spec_of({'name': name.strip(), 'question': question.strip(), **when})]


def read_questions(path: Path) -> list[TimedQuestion]:
    """Read a file with a list `questions` of `{at_s, question, choices, expect, last_seconds}`.

    Raises:
        BadRequestError: It cannot be read, or says something else.
    """
    values = read_values(path)
    listed = values.get('questions') if isinstance(values, dict) else values
    if not isinstance(listed, list) or not listed:
        raise BadRequestError(f'{path}: no questions: a list `questions` is missing or empty')
    try:
        found = [
            TimedQuestion(
                at_s=float(each['at_s']),
                question=str(each['question']),
                choices=tuple(map(str, each.get('choices', ()))),
                expect=str(each.get('expect', '')),
                last_seconds=float(each.get('last_seconds', 0.0)),
            )
            for each in listed
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadRequestError(
            f'{path}: a question has at_s and question, and may have choices, expect and '
            f'last_seconds ({type(error).__name__}: {error})'
        ) from error
    return sorted(found, key=lambda each: each.at_s)


def _find_watches(values: Any) -> dict[str, Any]:
    """Return the first mapping `watches`, however deep a parameter file has it."""
    if not isinstance(values, dict):
        return {}
    found = values.get('watches')
    if isinstance(found, dict) and all(isinstance(each, dict) for each in found.values()):
        return found
    return next(filter(None, map(_find_watches, values.values())), {})
