"""Names from elsewhere: what may be joined to a folder of models, and what may not."""

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.core.foreign_names import (
    require_commit,
    require_inside,
    require_plain,
    require_relative,
    require_repository,
    require_revision,
)

GOOD = ['config.json', 'onnx/vision_encoder.onnx', 'a b.json', '.gitattributes', '..a', 'café/x']
BAD = [
    '', '.', '..', '../x', 'a/../x', 'a/..', './x', 'a//x', 'a/', '/x', '//x', 'C:x', 'c:/x',
    'a/C:x', '..\\x', 'a\\x', 'a\nx', 'a\rx', 'a\0x', 'a\x1b[2Jx', 'a\x7fx', 'a\x9bx',
    'a\u202ex', 'a\u2066x', 'a\ud800x', 'x' * 256, 'ä' * 128, 'x/' * 600 + 'x', None, 3, b'x',
]  # fmt: skip


@pytest.mark.parametrize('name', GOOD)
def test_an_ordinary_name_stays_as_it_is(tmp_path, name):
    assert require_relative(name, 'it') == name
    assert require_inside(tmp_path, name, 'it') == tmp_path / name


@pytest.mark.parametrize('name', BAD)
def test_a_name_that_could_reach_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ModelFileError, match=r'^owner/name names a file .*nothing was changed$'):
        require_relative(name, 'owner/name')
    with pytest.raises(ModelFileError) as refused:
        require_inside(tmp_path, name, 'owner/name')
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 300


def test_a_linked_folder_is_followed_only_where_it_stays_inside(tmp_path):
    folder, outside = tmp_path / 'models', tmp_path / 'outside'
    (folder / 'real').mkdir(parents=True)
    outside.mkdir()
    (folder / 'in').symlink_to(folder / 'real')
    (folder / 'out').symlink_to(outside)
    assert require_inside(folder, 'in/x', 'it') == folder / 'in' / 'x'
    for name in ('out/x', 'out/a/x', 'in/../../x'):
        with pytest.raises(ModelFileError):
            require_inside(folder, name, 'it')
    # A folder of models may itself be a link, to another disk.
    (tmp_path / 'link').symlink_to(folder)
    assert require_inside(tmp_path / 'link', 'real/x', 'it') == tmp_path / 'link' / 'real' / 'x'


@pytest.mark.parametrize(
    ('check', 'good', 'bad'),
    [
        (require_plain, ['x', 'x.json'], ['a/b', '..']),
        (require_repository, ['a/b', 'AXERA-TECH/InternVL3-2B'], ['a', '../b', 'a/..', 'a/b/c']),
        (require_revision, ['main', 'v1.0', 'a/b', 'f' * 40], ['..', '-x', '/x', 'a//b', 'a b']),
        (require_commit, ['f' * 40, '0' * 64], ['', None, 'main', 'f' * 41, '../' + 'f' * 37]),
    ],
)
def test_other_names_have_one_form(check, good, bad):
    assert [check(name, 'it') for name in good] == good
    for name in bad:
        with pytest.raises(ModelFileError):
            check(name, 'it')
