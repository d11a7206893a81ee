"""Unpacking what comes as a zip: only what is wanted, only where it belongs."""

import zipfile

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.models.catalogue import RemoteFile
from edge_vlm_ros.models.vendor_files import fetch_file, unpack_file, unpack_tokenizer


def pack(path, *members):
    with zipfile.ZipFile(path, 'w') as packed:
        for name, content in members:
            packed.writestr(name, content)
    return path


def test_only_the_wanted_member_is_written(tmp_path):
    archive = pack(
        tmp_path / 'a.zip', ('BM1684X/it.bmodel', 'weights'), ('../outside', ''), ('/etc/x', '')
    )
    folder = tmp_path / 'models'
    folder.mkdir()
    unpack_file(archive, folder / 'it.bmodel')
    assert [path.name for path in folder.iterdir()] == ['it.bmodel']
    assert (folder / 'it.bmodel').read_text() == 'weights'


@pytest.mark.parametrize(
    ('members', 'says'),
    [
        ([('other.bmodel', '')], 'a.zip holds no it.bmodel'),
        ([('a/it.bmodel', ''), ('b/it.bmodel', '')], 'a.zip holds 2 it.bmodel'),
    ],
)
def test_none_or_several_are_refused(tmp_path, members, says):
    archive = pack(tmp_path / 'a.zip', *members)
    with pytest.raises(ModelFileError, match=says):
        unpack_file(archive, tmp_path / 'it.bmodel')


def test_a_damaged_zip_leaves_nothing(tmp_path):
    archive = pack(tmp_path / 'a.zip', ('it.bmodel', 'weights' * 1000))
    damaged = archive.read_bytes().replace(b'weights' * 3, b'wrights' * 3, 1)
    archive.write_bytes(damaged)
    with pytest.raises(ModelFileError, match=r'it\.bmodel of a zip: Bad CRC'):
        unpack_file(archive, tmp_path / 'it.bmodel')
    assert [path.name for path in tmp_path.iterdir()] == ['a.zip']
    archive.write_bytes(b'<html>no such file</html>')
    with pytest.raises(ModelFileError, match=r'a\.zip is no zip'):
        unpack_file(archive, tmp_path / 'it.bmodel')


def test_a_file_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    archive = pack(tmp_path / 'a.zip', ('it.bmodel', 'weights'))
    with zipfile.ZipFile(archive) as packed:
        (member,) = packed.infolist()
    member.file_size = 1 << 60
    monkeypatch.setattr(zipfile.ZipFile, 'infolist', lambda _: [member])
    with pytest.raises(ModelFileError, match='MB are to come, '):
        unpack_file(archive, tmp_path / 'it.bmodel')


def test_texts_come_without_their_folders_those_of_the_tokenizer_first(tmp_path):
    archive = pack(
        tmp_path / 'configs.zip',
        ('configs/config.json', '{"top": 1}'),
        ('configs/processor_config/config.json', '{"wrong": 1}'),
        ('configs/processor_config/preprocessor_config.json', '{}'),
        ('configs/token_config/tokenizer.json', '{}'),
        ('configs/token_config/../../../merges.txt', 'inside all the same'),
        ('configs/run.py', ''),
        ('configs/weights.bin', ''),
    )
    unpack_tokenizer(archive, tmp_path / 'to')
    assert sorted(path.name for path in (tmp_path / 'to').iterdir()) == [
        'config.json', 'merges.txt', 'preprocessor_config.json', 'tokenizer.json'
    ]  # fmt: skip
    assert (tmp_path / 'to' / 'config.json').read_text() == '{"top": 1}'


def test_texts_without_config_are_refused(tmp_path):
    archive = pack(tmp_path / 'configs.zip', ('tokenizer.json', '{}'))
    with pytest.raises(ModelFileError, match=r'configs\.zip holds no config\.json'):
        unpack_tokenizer(archive, tmp_path / 'to')


def test_a_file_of_the_right_size_and_hash_is_left_as_it_is(tmp_path):
    (tmp_path / 'it.bmodel').write_bytes(b'weights')
    sha256 = '9db14cc0ddf2eb32e9f0cf7ab6da1a4b01ad8d3a8c9bf8e7c5f1c0f6e5a6ab3d'
    said = []
    fetch_file(RemoteFile('it.bmodel', 'open@x:/it.bmodel', 7), tmp_path, said.append)
    assert said == [f'{tmp_path / "it.bmodel"} is here already']
    with pytest.raises(ModelFileError):
        fetch_file(RemoteFile('it.bmodel', 'open@x:it', 7, sha256), tmp_path, said.append)


def test_an_address_that_a_shell_would_read_otherwise_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'dfss').mkdir()
    (tmp_path / 'dfss' / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelFileError, match='is no address for dfss'):
        fetch_file(RemoteFile('it', 'open@x:/it;reboot'), tmp_path, print)


BACKSLASH = [
    'tokenizer/..\\..\\x.json',
    'tokenizer/C:x.json',
    'tokenizer/a\x1b[2Jx.json',
    'tokenizer/a\x7fx.json',
    f'tokenizer/{"x" * 300}.json',
]


@pytest.mark.parametrize('name', BACKSLASH)
def test_a_zip_with_an_odd_name_for_a_text_gives_nothing(tmp_path, name):
    archive = pack(tmp_path / 'a.zip', ('config.json', '{}'), (name, '{}'))
    with pytest.raises(ModelFileError, match=r'a\.zip names a file .*nothing was changed'):
        unpack_tokenizer(archive, tmp_path / 'to')
    assert not (tmp_path / 'to').exists()


def test_a_zip_of_very_many_texts_gives_nothing(tmp_path):
    members = [(f'{number}.json', '{}') for number in range(101)]
    archive = pack(tmp_path / 'a.zip', ('config.json', '{}'), *members)
    with pytest.raises(ModelFileError, match=r'holds 102 text files .* the limits are 100'):
        unpack_tokenizer(archive, tmp_path / 'to')
    assert not (tmp_path / 'to').exists()


def test_a_link_where_a_part_is_written_is_not_written_through(tmp_path):
    archive = pack(tmp_path / 'a.zip', ('it.bmodel', 'weights'))
    mine = tmp_path / 'mine'
    mine.write_text('of the user')
    (tmp_path / 'it.bmodel.part').symlink_to(mine)
    unpack_file(archive, tmp_path / 'it.bmodel')
    assert (tmp_path / 'it.bmodel').read_text() == 'weights'
    assert mine.read_text() == 'of the user'


@pytest.mark.parametrize('path', ['../../x.bmodel', '/x.bmodel', 'C:/x', 'a\\x', 'a//x', ''])
def test_a_row_that_leads_out_of_its_folder_is_refused_before_the_client_runs(tmp_path, path):
    row = RemoteFile(path, 'open@sophgo.com:/x.bmodel')
    with pytest.raises(ModelFileError, match='nothing was changed'):
        fetch_file(row, tmp_path / 'home', print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('url', ['open@sophgo.com:/..', 'open@sophgo.com:/', 'x/.'])
def test_an_address_without_a_file_name_is_refused_before_the_client_runs(
    tmp_path, monkeypatch, url
):
    monkeypatch.setattr('edge_vlm_ros.models.vendor_files.CLIENT', 'json')
    with pytest.raises(ModelFileError, match='nothing was changed'):
        fetch_file(RemoteFile('x.bmodel', url), tmp_path, print)
    assert list(tmp_path.iterdir()) == []
