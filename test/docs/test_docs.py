"""The pages of the documentation: up to date, linked, and true of what they describe."""

import re
import warnings
from pathlib import Path

import cv2
import pytest

from edge_vlm_ros.vision import open_media
from tools.docs.interface_file import read_interface
from tools.docs.markdown import escape, table
from tools.docs.pages import PAGES, fill

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = sorted([*ROOT.glob('*.md'), *ROOT.glob('doc/*.md'), *ROOT.glob('tools/*/README.md')])
LINK = re.compile(r'\[[^\]\[]*\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)')
README = (ROOT / 'README.md').read_text(encoding='utf-8')
README_LINES = 150
CLIP = ROOT / 'edge_vlm_ros' / 'demo' / 'clips' / 'box_cone_and_rolling_ball.mp4'
# Written beside this page at the same time; none is missing once all is merged.
AWAITED: set[str] = set()


@pytest.mark.parametrize(
    'page',
    [pytest.param(p, marks=[pytest.mark.ros] if p.needs_ros else []) for p in PAGES],
    ids=lambda page: page.path,
)
def test_a_generated_page_is_up_to_date(page, ros_domain):
    written = (ROOT / page.path).read_text(encoding='utf-8')
    assert page.render(ROOT) == written, 'run `make docs`'


@pytest.mark.parametrize('text', ['', '<!-- generated: b -->\n<!-- end: b -->\n'])
def test_a_page_without_the_place_for_a_part_is_refused(text):
    with pytest.raises(ValueError, match='a'):
        fill(text, {'a': 'new'})


def test_filling_a_page_twice_changes_nothing():
    once = fill('above\n<!-- generated: a -->\nold\n<!-- end: a -->\nbelow\n', {'a': 'new'})
    assert once == 'above\n<!-- generated: a -->\n\nnew\n\n<!-- end: a -->\nbelow\n'
    assert fill(once, {'a': 'new'}) == once


def test_markup_in_a_comment_is_shown_and_not_obeyed():
    assert escape('cameras.<name> or `<name>`: FINISH_*, a|b') == (
        r'cameras.&lt;name> or `<name>`: FINISH_\*, a\|b'
    )


def test_a_row_that_does_not_fit_its_table_is_refused():
    with pytest.raises(ValueError, match='1 cells under 2'):
        table(('a', 'b'), [('only one',)])


def test_an_uncommented_field_is_refused(tmp_path):
    (tmp_path / 'X.msg').write_text('# What it is for.\n\nuint8 field\n')
    with pytest.raises(ValueError, match='uint8 field'):
        read_interface(tmp_path / 'X.msg')


def test_a_comment_over_two_lines_is_one_meaning():
    request, _ = read_interface(ROOT / 'srv' / 'Ask.srv').sections
    (choices,) = (f for f in request.fields if f.name == 'choices')
    assert 'word for word, where the chip gives scores' in choices.meaning


def anchors(path):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r'^#+ (.+)$', path.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings}


@pytest.mark.parametrize('path', MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    broken = []
    for target, anchor in LINK.findall(path.read_text(encoding='utf-8')):
        page = path.parent / target if target else path
        if page.name in AWAITED:
            continue
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(f'{target}#{anchor}')
    assert broken == []


def test_the_readme_is_a_front_page():
    assert len(README.splitlines()) <= README_LINES


def test_the_python_example_of_the_readme_answers(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r'^```python\n(.*?)^```', README, re.MULTILINE | re.DOTALL)
    reader = open_media(str(CLIP))
    pixels, _ = next(iter(reader))
    reader.close()
    cv2.imwrite(str(tmp_path / 'scene.jpg'), pixels[..., ::-1])
    monkeypatch.chdir(tmp_path)
    exec(compile(example, 'README.md', 'exec'), {})
    assert 'ball' in capsys.readouterr().out


def test_every_option_of_the_command_line_is_in_its_guide():
    from edge_vlm_ros.cli.parser import build_parser

    guide = (ROOT / 'doc' / 'cli.md').read_text(encoding='utf-8')
    named = set(re.findall(r'--[a-z-]+', guide))
    assert sorted(options_of(build_parser()) - named) == []


def options_of(parser):
    """Return the long options of a parser and of its commands, without --help."""
    found = set()
    for action in parser._actions:
        found.update(o for o in action.option_strings if o.startswith('--') and o != '--help')
        for command in (action.choices or {}).values() if hasattr(action, 'add_parser') else ():
            found |= options_of(command)
    return found


@pytest.mark.ros
def test_the_default_file_says_what_the_code_declares(ros_domain):
    from edge_vlm_ros.nodes.parameters import declare_parameters
    from tools.docs.parameters import declared, read_parameter_file

    defaults = {p.name: p.default for p in declared('vlm', declare_parameters)}
    written = read_parameter_file(ROOT / 'config' / 'vlm.yaml')
    assert written == {name: defaults[name] for name in written}
    assert set(defaults) - set(written) == {n for n in defaults if '.' in n}


@pytest.mark.ros
def test_the_names_on_the_graph_are_those_of_the_node(ros_domain):
    rclpy = pytest.importorskip('rclpy')
    from rclpy.lifecycle import LifecycleNode

    from edge_vlm_ros.nodes.vlm_node import VlmNode

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    with warnings.catch_warnings():
        # The message generator, imported with the first message, imports old modules.
        warnings.simplefilter('ignore', DeprecationWarning)
        nodes = [LifecycleNode('plain', context=context), VlmNode(context=context)]
    try:
        every_node_has, found = (names_of(node) for node in nodes)
    finally:
        for node in nodes:
            node.destroy_node()
        context.try_shutdown()
    assert names_in_the_guide() == found - every_node_has


def names_of(node):
    """Return name and type of what a node serves and publishes; its own name is `vlm`."""
    from rclpy.action import get_action_server_names_and_types_by_node

    who = (node.get_name(), node.get_namespace())
    listed = [
        *node.get_service_names_and_types_by_node(*who),
        *node.get_publisher_names_and_types_by_node(*who),
        *get_action_server_names_and_types_by_node(node, *who),
    ]
    return {
        (re.sub(f'^/{who[0]}/', '/vlm/', name), kind)
        for name, kinds in listed
        for kind in kinds
        if '/_action/' not in name
    }


def names_in_the_guide():
    """Return name and type of each service, action and published topic in the table."""
    guide = (ROOT / 'doc' / 'interfaces.md').read_text(encoding='utf-8')
    row = r'^\| `(/\S+)` \| (?!topic, subscribed)[^|]+ \| `(\S+)` \|'
    return set(re.findall(row, guide, re.MULTILINE))
