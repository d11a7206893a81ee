"""Fixtures of the text room."""

import importlib.util
from pathlib import Path

import pytest

from edge_vlm_ros.text import Tokenizer


def _made_tokenizers():
    path = Path(__file__).with_name('made_tokenizers.py')
    spec = importlib.util.spec_from_file_location('made_tokenizers', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def made():
    return _made_tokenizers()


@pytest.fixture(scope='session')
def qwen_file(made, tmp_path_factory):
    """A folder with the tokenizer.json of a byte-level BPE like Qwen2's."""
    folder = tmp_path_factory.mktemp('qwen')
    made.qwen_like().save(str(folder / 'tokenizer.json'))
    return folder


@pytest.fixture(scope='session')
def qwen(qwen_file):
    return Tokenizer.load(qwen_file)


@pytest.fixture(scope='session')
def llama(made):
    return Tokenizer(made.llama_like(), 'llama-like')


@pytest.fixture(scope='session')
def words(made):
    return Tokenizer(made.word_level(), 'word-level')
