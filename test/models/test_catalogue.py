"""Laws of the catalogue: every entry is complete, every chip has a default."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from edge_vlm_ros.core import (
    CHIPS,
    BadRequestError,
    ErrorCode,
    FileForm,
    ModelFileError,
    family_names,
)
from edge_vlm_ros.models import load_catalogue

CATALOGUE = load_catalogue()
# Published models, chip by chip.
PUBLISHED = {
    'cpu': {
        'demo', 'smolvlm-256m', 'smolvlm-500m', 'smolvlm2-256m', 'smolvlm2-500m', 'qwen2-vl-2b',
        'qwen2-vl-2b-q4f16',
    },
    'scripted': {'scripted'},
    'bm1684x': {
        'internvl2-4b', 'internvl2-4b-1core', 'internvl2-8b', 'internvl2-8b-int8', 'internvl3-2b',
        'internvl3-8b', 'internvl3-2b-history', 'internvl3-2b-dynamic', 'qwen2-vl-7b',
        'qwen2-vl-7b-512', 'qwen2-vl-2b', 'qwen2-vl-2b-512', 'qwen2-vl-2b-2048',
        'llama-3.2-11b-vision', 'llama-3.2-11b-vision-2025', 'llama-3.2-11b-vision-2048',
        'internvl3.5-1b', 'internvl3.5-2b', 'internvl3.5-4b', 'internvl3.5-8b',
        'qwen2.5-vl-3b', 'qwen2.5-vl-7b', 'qwen2.5-vl-7b-8192', 'qwen2.5-vl-3b-history',
        'qwen2.5-vl-3b-dynamic',
        'qwen3-vl-2b', 'qwen3-vl-4b', 'qwen3-vl-8b',
    },
    'bm1688': {
        'internvl2-2b', 'internvl3-2b', 'qwen2-vl-2b', 'qwen2.5-vl-3b', 'qwen2.5-vl-7b',
        'internvl3.5-1b', 'internvl3.5-2b',
        'qwen3-vl-2b', 'qwen3-vl-4b',
    },
    'ax650': {
        'internvl3-2b', 'internvl3-2b-9groups', 'internvl3-1b', 'internvl2.5-1b',
        'internvl2.5-1b-mpo', 'qwen2.5-vl-3b', 'qwen2.5-vl-3b-308', 'qwen2.5-vl-3b-int4',
        'qwen2.5-vl-7b', 'qwen2.5-vl-7b-video', 'internvl3.5-2b', 'internvl3.5-1b-int4',
        'qwen3-vl-2b', 'qwen3-vl-2b-int4', 'qwen3-vl-4b', 'qwen3-vl-8b',
    },
    'ax630c': {
        'internvl3-1b', 'internvl2.5-1b', 'internvl2.5-1b-mpo', 'internvl3.5-1b-int4',
    },
}  # fmt: skip
entries = pytest.mark.parametrize(
    'entry', CATALOGUE.entries, ids=lambda entry: f'{entry.chip}-{entry.name}'
)
BUILT_IN = {'demo', 'scripted'}
NO_CONTEXT = {'internvl2.5-1b-mpo', 'internvl3.5-1b-int4'}
"""Nobody has published how much they hold."""

WITH_FILES = [chip.name for chip in CHIPS if chip.file_form is not FileForm.NO_FILES]


def test_every_published_model_is_there_once():
    assert set(PUBLISHED) == set(WITH_FILES)
    for chip, names in PUBLISHED.items():
        listed = [entry.name for entry in CATALOGUE.models_for(chip)]
        assert sorted(listed) == sorted(names)


@pytest.mark.parametrize('chip', WITH_FILES)
def test_every_chip_has_a_default_that_exists(chip):
    assert CATALOGUE.find(chip, CATALOGUE.default_model(chip)).chip == chip


@entries
def test_an_entry_says_all_that_is_needed_to_use_it(entry):
    assert entry.family in family_names()
    assert entry.source
    assert entry.parameters
    assert all(file.path and not Path(file.path).is_absolute() for file in entry.files.values())
    if entry.name in BUILT_IN:
        return
    if entry.chip == 'cpu':
        assert entry.hub.revision or entry.name.startswith('qwen2-vl'), 'none is known of it'
        assert entry.work
        return
    assert entry.tokenizer.count('/') == 1
    assert entry.sdk
    unpublished = NO_CONTEXT | {'qwen2.5-vl-7b', 'qwen2.5-vl-7b-video'}
    assert entry.context_tokens or entry.name in unpublished


@entries
def test_an_entry_that_is_not_shipped_says_how_to_get_every_file(entry):
    commands = entry.fetch_commands(Path('/models/it'))
    if entry.name in BUILT_IN:
        assert commands == ()
        return
    assert all('/models/it' in command for command in commands)
    assert any(entry.tokenizer in command for command in commands)
    has_url = all(file.url for file in entry.files.values())
    assert has_url or entry.hub or entry.manual
    if entry.hub:
        assert any(entry.hub.repository in command for command in commands)
    if entry.manual:
        assert any(entry.manual in command for command in commands)
    for file in entry.files.values():
        assert not file.url or any(file.url in command for command in commands)


@entries
def test_layers_are_counted_where_files_come_by_layer(entry):
    by_layer = any('{layer}' in file.path for file in entry.files.values())
    assert bool(entry.layers) == by_layer


@entries
def test_an_axera_entry_says_which_files_and_which_sdk(entry):
    if not entry.chip.startswith('ax'):
        return
    assert '{layer}' in entry.files['layers'].path
    assert entry.files['vision_encoder'].path.endswith('.axmodel')
    assert [int(number) for number in entry.sdk_version.split('.')] >= [2, 18]


def test_what_the_large_models_need_of_a_soc_comes_with_its_command():
    memory = CATALOGUE.find('bm1684x', 'llama-3.2-11b-vision').soc_memory
    assert memory.total_mb == 7615 + 3071 + 3071
    assert memory.command == './memory_edit.sh -c -npu 7615 -vpu 3071 -vpp 3071'
    assert CATALOGUE.find('bm1684x', 'internvl3-2b').soc_memory is None


def test_a_packed_model_comes_with_the_command_that_unpacks_it():
    entry = CATALOGUE.find('bm1684x', 'llama-3.2-11b-vision')
    commands = entry.fetch_commands(Path('/models'))
    assert (
        "cd /models && unzip -j BM1684X.zip '*llama3.2-11b-vision_int4_512seq.bmodel'" in commands
    )


def test_hub_commands_name_revision_and_patterns():
    (command,) = [
        line
        for line in CATALOGUE.find('ax650', 'internvl2.5-1b').fetch_commands(Path('/m'))
        if 'AXERA' in line
    ]
    assert command == (
        'hf download AXERA-TECH/InternVL2_5-1B'
        ' --revision 123ee66991d912a70487a6d17343982ec67e7444'
        " --include 'internvl2_5_1b_448_ax650/*' --local-dir /m"
    )


@pytest.mark.parametrize('entry', [e for e in CATALOGUE.models_for('cpu') if e.hub], ids=str)
def test_a_model_of_the_cpu_names_one_variant_and_brings_what_lies_beside_it(entry):
    wanted = [
        'config.json',
        'tokenizer.json',
        'preprocessor_config.json',
        *(file.path for file in entry.files.values()),
        *(f'{file.path}_data' for file in entry.files.values()),
        *(f'{file.path}_data_1' for file in entry.files.values()),
    ]
    for name in wanted:
        assert any(fnmatchcase(name, pattern) for pattern in entry.hub.patterns)
    others = ['onnx/decoder_model_merged.onnx', 'onnx/vision_encoder_q4.onnx', 'model.safetensors']
    for name in others:
        assert not any(fnmatchcase(name, pattern) for pattern in entry.hub.patterns)


@pytest.mark.parametrize('wrong', ['{patches: 1}', '{patches: 0}', '{size: 3}', '5'])
def test_work_that_is_no_work_is_refused(tmp_path, wrong):
    path = tmp_path / 'catalogue.yaml'
    row = 'name: x, chip: cpu, family: internvl, files: {a: {path: b}}'
    path.write_text(f'models: [{{{row}, work: {wrong}}}]')
    with pytest.raises(ModelFileError, match=r'no model catalogue'):
        load_catalogue([path])


def test_an_unknown_chip_is_a_bad_request():
    with pytest.raises(BadRequestError, match="no chip 'tpu'; chips are: cpu, scripted") as caught:
        CATALOGUE.default_model('tpu')
    assert caught.value.code is ErrorCode.UNSUPPORTED_OPTION


def test_an_unknown_model_is_answered_with_those_that_are_there():
    with pytest.raises(ModelFileError, match=r"'gpt' for chip bm1688; there are: internvl2-2b, "):
        CATALOGUE.find('bm1688', 'gpt')


def test_a_model_of_another_chip_is_answered_with_that_chip():
    assert CATALOGUE.chips_of('qwen2-vl-7b') == ('bm1684x',)
    with pytest.raises(ModelFileError, match=r'there is one for bm1684x\)'):
        CATALOGUE.find('bm1688', 'qwen2-vl-7b')


OVERLAY = """
defaults: {bm1688: mine}
models:
  - name: mine
    chip: bm1688
    family: internvl
    files: {model: {path: mine.bmodel, bytes: 12}}
  - name: internvl3-2b
    chip: bm1688
    family: internvl
    files: {model: {path: other.bmodel}}
"""


def test_an_overlay_adds_and_replaces(tmp_path):
    path = tmp_path / 'catalogue.yaml'
    path.write_text(OVERLAY)
    joined = load_catalogue([tmp_path / 'none.yaml', path])
    assert joined.default_model('bm1688') == 'mine'
    assert joined.find('bm1688', 'mine').files['model'].nbytes == 12
    assert joined.find('bm1688', 'internvl3-2b').files['model'].path == 'other.bmodel'
    assert len(joined.entries) == len(CATALOGUE.entries) + 1
    assert joined.find('bm1684x', 'internvl3-2b') == CATALOGUE.find('bm1684x', 'internvl3-2b')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('models: [', 'no model catalogue'),
        ('models: [{name: x}]', 'files'),
        ('models: [{name: x, files: {a: {path: b}}}]', 'chip'),
        ('models: [{name: x, chip: tpu, family: internvl, files: {a: {path: b}}}]', "'tpu'"),
        ('models: [{name: x, chip: cpu, family: gpt, files: {a: {path: b}}}]', "'gpt'"),
        ('models: [{name: x, chip: cpu, family: internvl, files: {}}]', 'no files'),
        (
            'models: [{name: x, chip: cpu, family: internvl, files: {a: {path: b}}, hub: {a: 1}}]',
            "'a'",
        ),
        (
            'models: [{name: x, chip: cpu, family: internvl, files: {a: {path: b}}, size: 3}]',
            'size',
        ),
        ('- a list', 'no model catalogue'),
    ],
)
def test_a_wrong_overlay_is_refused_with_its_file(tmp_path, text, message):
    path = tmp_path / 'catalogue.yaml'
    path.write_text(text)
    with pytest.raises(ModelFileError, match=rf'catalogue\.yaml: .*{message}'):
        load_catalogue([path])


def test_the_guide_names_every_model():
    guide = (Path(__file__).resolve().parents[2] / 'doc' / 'models.md').read_text()
    for entry in CATALOGUE.entries:
        assert f'`{entry.name}`' in guide
        for file in entry.files.values():
            name = Path(file.path).name
            if name.endswith('.bmodel') and 'seq2048_1dev' not in name:
                assert name in guide


FIELDS = [
    ({'name': '../../x'}, 'names a file'),
    ({'name': 'a/b'}, 'has a / in it'),
    ({'name': 3}, 'is no text'),
    ({'files': {'model': {'path': '../x', 'url': 'x@y:/z'}}}, "'.' or '..'"),
    ({'files': {'model': {'path': '/etc/passwd', 'url': 'x@y:/z'}}}, 'is absolute'),
    ({'files': {'model': {'path': 'a\\b', 'url': 'x@y:/z'}}}, 'backslash'),
    ({'files': {'model': {'path': '{layer.__class__}'}}}, 'only {layer}'),
    ({'files': {'model': {'path': '**/x'}}}, 'only {layer}'),
    ({'files': {'model': {'path': 'x', 'bytes': -1}}}, 'from 0 on'),
    ({'files': {'model': {'path': 'x', 'url': ['x']}}}, 'url is a text'),
    ({'hub': {'repository': '../x'}}, 'no repository'),
    ({'hub': {'repository': 'a/b; rm -r x'}}, 'no repository'),
    ({'hub': {'repository': 'a/b', 'revision': '../../x'}}, 'no revision'),
    ({'hub': {'repository': 'a/b', 'revision': '-x'}}, 'no revision'),
    ({'hub': {'repository': 'a/b', 'patterns': ['../*']}}, "'.' or '..'"),
    ({'hub': {'repository': 'a/b', 'patterns': ["x'; rm -r '"]}}, 'quotation mark'),
    ({'tokenizer': 'a/..'}, 'no repository'),
    ({'layers': 10**9}, 'layers is from 0 to 1000'),
    ({'layers': 'many'}, 'layers is from 0 to 1000'),
]


@pytest.mark.parametrize(('changed', 'says'), FIELDS)
def test_a_row_that_names_files_outside_its_folder_is_no_row(tmp_path, changed, says):
    row = {'name': 'x', 'chip': 'cpu', 'family': 'internvl', 'files': {'model': {'path': 'x'}}}
    path = tmp_path / 'catalogue.yaml'
    path.write_text(yaml.safe_dump({'models': [{**row, **changed}]}))
    with pytest.raises(ModelFileError, match=re.escape(says)):
        load_catalogue([path])
