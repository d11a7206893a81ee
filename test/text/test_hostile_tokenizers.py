"""Tokenizers that mean harm, or were damaged on their way: a `ModelFileError`, never a panic."""

import json
import shutil
from pathlib import Path

import pytest
from support.mutations import mutations
from support.reference.internvl2_cases import internlm2_config

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.models.shipped import SHIPPED_FOLDERS
from edge_vlm_ros.text import Tokenizer
from edge_vlm_ros.text.sentencepiece import SentencePieceModel

DATA = Path(__file__).parent / 'data'
SCRIPTED = SHIPPED_FOLDERS['scripted', 'scripted']
ROUNDS = 300


def varint(value):
    found = b''
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def with_charsmap(charsmap):
    """Add a normaliser's table to a model; the last of a field counts."""
    return (DATA / 'bare.model').read_bytes() + field(3, field(2, charsmap))


def loaded(folder):
    """Load; return 1 if it was refused as it should be."""
    try:
        Tokenizer.load(folder)
    except ModelFileError as error:
        return int(str(folder) in error.message)
    return 0


def test_law_a_damaged_tokenizer_json_is_read_or_refused(tmp_path, capfd):
    whole = (SCRIPTED / 'tokenizer.json').read_bytes()
    refused = 0
    for damaged in mutations(whole, ROUNDS):
        (tmp_path / 'tokenizer.json').write_bytes(damaged)
        refused += loaded(tmp_path)
    assert refused > ROUNDS // 20
    capfd.readouterr()


def test_law_a_damaged_sentencepiece_model_is_read_or_refused(tmp_path, capfd):
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(internlm2_config()))
    refused = 0
    for damaged in mutations((DATA / 'bare.model').read_bytes(), ROUNDS):
        (tmp_path / 'tokenizer.model').write_bytes(damaged)
        refused += loaded(tmp_path)
    assert refused > ROUNDS // 20
    capfd.readouterr()


def test_law_a_damaged_charsmap_is_read_or_refused(tmp_path, capfd):
    shutil.copy(SCRIPTED / 'config.json', tmp_path)
    refused = 0
    seeds = [b'\4\0\0\0' + bytes(4) + b'a\0b\0', bytes(range(64)), b'\xff' * 40, b'\1']
    for number, seed in enumerate(seeds):
        for damaged in mutations(seed, 60, number):
            (tmp_path / 'tokenizer.model').write_bytes(with_charsmap(damaged))
            refused += loaded(tmp_path)
    assert refused > 20
    capfd.readouterr()


def test_law_damaged_added_tokens_are_read_or_refused(tmp_path, capfd):
    shutil.copy(DATA / 'bare.model', tmp_path / 'tokenizer.model')
    whole = json.dumps(internlm2_config()).encode()
    refused = 0
    for damaged in mutations(whole, ROUNDS):
        (tmp_path / 'tokenizer_config.json').write_bytes(damaged)
        refused += loaded(tmp_path)
    assert refused > ROUNDS // 20
    capfd.readouterr()


def test_a_piece_as_long_as_a_file_is_refused_at_once():
    with pytest.raises(ValueError, match='pieces too long'):
        SentencePieceModel.read(field(1, field(1, b'x' * 1_000_000)))


@pytest.mark.parametrize('name', ['tokenizer.json', 'tokenizer.model'])
def test_a_huge_tokenizer_is_refused_unread(tmp_path, name):
    with (tmp_path / name).open('wb') as file:
        file.truncate(200 << 20)
    with pytest.raises(ModelFileError, match='has 209715200 bytes, the limit is 134217728'):
        Tokenizer.load(tmp_path)
