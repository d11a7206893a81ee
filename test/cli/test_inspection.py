"""`edge-vlm inspect`: which chip, what is refused, how a report is laid out."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
from support.axera.sets import KINDS
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.cli.inspection import as_fields, as_text, guess_chip
from edge_vlm_ros.core import BadRequestError, ModelFileError, ModelReport, ReportTable

ROOT = Path(__file__).resolve().parents[2]

REPORT = ModelReport(
    (('family', 'internvl'), ('layers', '28')),
    (
        ReportTable('groups', ('kind', 'tokens'), (('prefill', '128'), ('decode', '1'))),
        ReportTable('none of these', ('a', 'b'), ()),
    ),
)


def test_a_report_is_facts_then_tables():
    assert as_text(REPORT).splitlines() == [
        'family  internvl',
        'layers  28',
        '',
        'groups',
        '  KIND     TOKENS',
        '  prefill  128',
        '  decode   1',
        '',
        'none of these',
        '  A  B',
    ]


def test_a_report_as_plain_data_has_the_columns_for_names():
    fields = as_fields(REPORT)
    assert fields['facts'] == {'family': 'internvl', 'layers': '28'}
    assert fields['tables'][0] == {
        'title': 'groups',
        'rows': [{'kind': 'prefill', 'tokens': '128'}, {'kind': 'decode', 'tokens': '1'}],
    }


@pytest.mark.parametrize('chip', ['cpu', 'scripted'])
def test_what_an_engine_cannot_inspect_is_refused(edge_vlm, chip):
    done = edge_vlm('inspect', 'demo' if chip == 'cpu' else 'scripted')
    assert (done.returncode, done.stdout) == (2, '')
    assert f'models for chip {chip} cannot be inspected' in done.stderr


def write_bmodel(path, chip):
    """Write the least of a bmodel: header, and a description with the chip's name and no nets."""
    # A table with fields 0..4, of which field 3 (chip) is set, at the end of its own vtable.
    text = struct.pack('<I', len(chip)) + chip.encode() + b'\0'
    vtable = struct.pack('<7H', 14, 8, 0, 0, 0, 4, 0) + b'\0\0'
    table = struct.pack('<iI', len(vtable), 4)
    flat = struct.pack('<I', 4 + len(vtable)) + vtable + table + text
    flat += bytes(-len(flat) % 8)
    path.write_bytes(struct.pack('<4I', 0xFF55AAEE, 64, len(flat), 0) + bytes(48) + flat)
    return path


@pytest.mark.parametrize('chip', ['BM1684X', 'BM1688'])
def test_a_bmodel_names_its_chip(tmp_path, chip):
    path = write_bmodel(tmp_path / 'it.bmodel', chip)
    assert guess_chip(str(path), []) == chip.lower()
    assert guess_chip(str(tmp_path), []) == chip.lower()


def test_several_bmodels_of_one_folder_do_not_say_which_chip(tmp_path):
    write_bmodel(tmp_path / 'a.bmodel', 'BM1684X')
    write_bmodel(tmp_path / 'b.bmodel', 'BM1688')
    with pytest.raises(BadRequestError, match='may be for bm1684x or bm1688: say --chip'):
        guess_chip(str(tmp_path), [])


def test_axmodels_do_not_say_which_chip(tmp_path):
    (tmp_path / 'vit_axmodel').mkdir()
    (tmp_path / 'vit_axmodel' / 'it.axmodel').touch()
    with pytest.raises(BadRequestError, match='may be for ax650 or ax630c: say --chip'):
        guess_chip(str(tmp_path), [])


def test_a_name_of_one_chip_needs_no_chip(tmp_path):
    assert guess_chip('qwen2-vl-7b', []) == 'bm1684x'
    assert guess_chip('demo', []) == 'cpu'
    with pytest.raises(BadRequestError, match='internvl3-2b may be for'):
        guess_chip('internvl3-2b', [])
    with pytest.raises(ModelFileError, match="no model named 'gpt'"):
        guess_chip('gpt', [])


@pytest.mark.parametrize(
    ('words', 'code', 'says'),
    [
        (('./none',), 3, 'none: no such file or folder'),
        (('.',), 2, 'say --chip'),
        (('qwen2-vl-7b',), 3, 'edge-vlm models fetch qwen2-vl-7b --chip bm1684x'),
        (('demo', '--chip', 'tpu'), 2, "no chip 'tpu'"),
        ((), 2, 'MODEL'),
    ],
)
def test_what_cannot_be_inspected_is_said(edge_vlm, tmp_path, words, code, says):
    done = edge_vlm('inspect', *words, env={'XDG_DATA_HOME': str(tmp_path)})
    assert (done.returncode, done.stdout) == (code, '')
    assert says in done.stderr


def test_a_file_that_is_no_bmodel_is_named(edge_vlm, tmp_path):
    path = tmp_path / 'it.bmodel'
    path.write_bytes(b'<html>' * 99)
    done = edge_vlm('inspect', path)
    assert (done.returncode, done.stdout) == (3, '')
    assert f'{path}: no bmodel' in done.stderr


# --- for real: a made-up set on the stand-in for the chip ---------------------------------------


@pytest.fixture
def inspect_set(edge_vlm, tmp_path):
    """Write a set of the test bench and inspect it."""

    def run(kind, *words):
        folder = KINDS[kind](tmp_path / kind)
        places = [ROOT / 'test', ROOT / 'test' / 'support' / 'axera' / 'standin']
        env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, places))}
        return folder, edge_vlm('inspect', folder, '--chip', 'ax650', *words, env=env)

    return run


@pytest.mark.axera
def test_a_set_is_shown_with_its_limits_and_shape_groups(inspect_set):
    folder, done = inspect_set('tiny')
    assert done.returncode == 0, done.stderr
    lines = [' '.join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == f'model {folder}'
    assert lines.count('chip ax650') == 1
    assert 'context 319 tokens' in lines
    assert '0 decode 1 319' in lines
    assert '9 prefill 16 128' in lines


@pytest.mark.axera
def test_a_set_is_shown_as_one_object(inspect_set):
    folder, done = inspect_set('tiny', '--json')
    fields = json.loads(done.stdout)
    assert (fields['chip'], fields['folder']) == ('ax650', str(folder))
    assert fields['facts']['hidden size'] == '64'
    assert len(fields['tables'][0]['rows']) == 10


@pytest.mark.axera
def test_a_set_without_a_layer_is_refused_with_its_name(inspect_set):
    _, done = inspect_set('tiny-missing-layer')
    assert (done.returncode, done.stdout) == (3, '')
    assert re.search(r'missing qwen2_p16_l\d_together\.axmodel', done.stderr)


@pytest.mark.axera
def test_without_the_vendors_package_it_says_where_that_comes_from(edge_vlm, tmp_path):
    done = edge_vlm('inspect', KINDS['tiny'](tmp_path), '--chip', 'ax650')
    assert (done.returncode, done.stdout) == (3, '')
    assert 'github.com/AXERA-TECH/pyaxengine' in done.stderr


# --- for real: a compiled model -----------------------------------------------------------------


@pytest.fixture
def compiled(tmp_path):
    """Unpack a compiled model into a folder, with its texts as the converter writes them."""

    def unpack(name):
        fixture = FIXTURES[name]
        shutil.copytree(fixture.config_folder(), tmp_path / 'config')
        return fixture.unpack(tmp_path)

    return unpack


@pytest.mark.parametrize('place', ['.', 'file'])
def test_a_compiled_model_is_shown_without_its_chip(edge_vlm, compiled, place):
    path = compiled('internvl3_static_bf16_bm1684x')
    done = edge_vlm('inspect', path if place == 'file' else path.parent)
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.split('\n\n')[0].splitlines())
    assert facts['family'] == 'internvl'
    assert facts['layers'] == '2'
    assert facts['chip'].lower() == 'bm1684x'
    assert 'block_cache_0' in done.stdout


def test_a_compiled_model_of_the_other_chip_is_refused(edge_vlm, compiled):
    done = edge_vlm('inspect', compiled('internvl3_static_bf16_bm1684x'), '--chip', 'bm1688')
    assert (done.returncode, done.stdout) == (3, '')
    assert 'compiled for BM1684X' in done.stderr


def test_a_compiled_model_is_shown_as_one_object(edge_vlm, compiled):
    done = edge_vlm('inspect', compiled('internvl3_history_bf16_bm1688'), '--json')
    fields = json.loads(done.stdout)
    assert fields['chip'] == 'bm1688'
    (nets,) = [table for table in fields['tables'] if table['title'] == 'nets']
    assert any(row['net'].startswith('block_kv_0') for row in nets['rows'])
