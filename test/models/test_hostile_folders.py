"""Folders and lists of models that mean harm, or were damaged: found or refused, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile

import pytest
from support.mutations import mutations

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.models import find_model
from edge_vlm_ros.models.axmodel_set import search_axmodel_set
from edge_vlm_ros.models.catalogue import load_catalogue
from edge_vlm_ros.models.vendor_files import unpack_file, unpack_tokenizer

ROUNDS = 100
SET = [
    *(f'qwen2_p128_l{layer}_together.axmodel' for layer in range(4)),
    'qwen2_post.axmodel',
    'model.embed_tokens.weight.npy',
    'vit_axmodel/internvl_vit.axmodel',
    'config.json',
    'tokenizer.json',
]
CATALOGUE = """
defaults: {cpu: mine}
models:
  - name: mine
    chip: ax650
    family: internvl
    layers: 4
    tokenizer: owner/name
    files:
      layers: {path: 'qwen2_p128_l{layer}_together.axmodel'}
      post: {path: qwen2_post.axmodel, url: 'https://example.com/x', bytes: 12, sha256: '00'}
      embed_tokens: {path: 'model.embed_tokens.weight.npy'}
      vision_encoder: {path: '*vit*.axmodel'}
    hub: {repository: owner/name, revision: main, patterns: ['*.axmodel']}
    soc_memory: {npu: 2048, vpu: 10, vpp: 100}
"""


@pytest.fixture(autouse=True)
def no_models(tmp_path, monkeypatch):
    """Hide what this machine has in the usual places."""
    monkeypatch.delenv('EDGE_VLM_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))


def put(folder, names):
    """Make what can be made of these names, bytes of any kind, in and below a folder."""
    root = os.fsencode(folder)
    for name in names:
        path = os.path.normpath(os.path.join(root, name.lstrip(b'/')))  # noqa: PTH118 (bytes)
        if not path.startswith(root + b'/') or b'\0' in name:
            continue
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (bytes)
            with open(path, 'wb') as file:  # noqa: PTH123 (bytes)
                file.write(b'{"model_type": "internvl_chat"}' if b'json' in name else b'')


def refusal(find):
    """Return the error that a search ends in, None = it finds something."""
    try:
        find()
    except ModelFileError as error:
        return error
    return None


def check(find, *named):
    """Return 1 if a model is found, 0 if it is refused as it should be."""
    error = refusal(find)
    if error is None:
        return 1
    assert error.message.encode('utf-8')
    assert any(str(name) in error.message for name in named), error.message
    return 0


def test_law_a_set_of_damaged_names_is_found_or_refused(tmp_path):
    whole = '\n'.join(SET).encode()
    found = 0
    for number, damaged in enumerate(mutations(whole, ROUNDS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        put(folder, damaged.split(b'\n'))
        search_axmodel_set(folder)
        found += check(lambda folder=folder: find_model('ax650', str(folder)), folder)
    assert ROUNDS // 20 < found < ROUNDS - ROUNDS // 20


def test_law_numbers_in_names_are_no_sizes(tmp_path):
    """A layer of a number that nobody has must not make a list of as many."""
    for number in ('999', '1000', '9' * 30, '٣'):
        folder = tmp_path / number
        put(folder, [name.replace('_l3_', f'_l{number}_').encode() for name in SET])
        found = search_axmodel_set(folder)
        assert len(found.missing) + len(found.weights) < 2000
        assert check(lambda folder=folder: find_model('ax650', str(folder)), folder) in {0, 1}


def test_law_a_damaged_catalogue_is_read_or_refused(tmp_path):
    path = tmp_path / 'catalogue.yaml'
    read = 0
    for damaged in mutations(CATALOGUE.encode(), 2 * ROUNDS):
        path.write_bytes(damaged)
        read += check(lambda: load_catalogue([path]), path)
    assert ROUNDS // 20 < read < 2 * ROUNDS - ROUNDS // 10


def test_law_what_a_damaged_catalogue_names_is_found_or_refused(tmp_path):
    put(tmp_path / 'ax650' / 'mine', [name.encode() for name in SET])
    path = tmp_path / 'catalogue.yaml'
    for damaged in mutations(CATALOGUE.encode(), ROUNDS, 7):
        path.write_bytes(damaged)
        error = refusal(lambda: find_model('ax650', 'mine', [tmp_path]))
        assert error is None or error.message.encode('utf-8')


def test_law_a_damaged_script_is_found_or_refused(tmp_path):
    path = tmp_path / 'script.yaml'
    for damaged in mutations(b"answers: [{answer: 'yes'}]\ntokenizer: somewhere\n", ROUNDS):
        path.write_bytes(damaged)
        check(lambda: find_model('scripted', str(path)), tmp_path)


def test_the_catalogue_that_is_damaged_is_right_when_it_is_not(tmp_path):
    path = tmp_path / 'catalogue.yaml'
    path.write_text(CATALOGUE)
    put(tmp_path / 'ax650' / 'mine', [name.encode() for name in SET])
    assert json.dumps(sorted(find_model('ax650', 'mine', [tmp_path]).weights))


@pytest.mark.parametrize(
    'compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
)
def test_law_a_damaged_zip_gives_its_files_or_is_refused(tmp_path, compression):
    archive = tmp_path / 'a.zip'
    with zipfile.ZipFile(archive, 'w', compression) as packed:
        for name in ('it.bmodel', 'config.json', 'tokenizer.json'):
            packed.writestr(name, f'{{"{name}": 1}}' * 20)
    given, out = 0, tmp_path / 'out'
    out.mkdir()
    for damaged in mutations(archive.read_bytes(), 3 * ROUNDS):
        archive.write_bytes(damaged)
        given += check(lambda: unpack_file(archive, out / 'it.bmodel'), 'zip')
        given += check(lambda: unpack_tokenizer(archive, out), 'zip')
    assert 0 < given < 3 * ROUNDS
    assert {path.name for path in tmp_path.iterdir()} <= {'a.zip', 'out'}
