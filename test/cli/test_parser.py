"""What the words of the command line mean."""

from __future__ import annotations

import pytest

from edge_vlm_ros.cli.parser import parse


@pytest.mark.parametrize(
    ('words', 'images', 'turns'),
    [
        (['--image', 'a.png', 'Why?'], ['a.png'], []),
        (['Why?', '--image', 'a.png', 'b.png'], ['a.png', 'b.png'], []),
        (['--image', 'a.png', 'b.png', 'Why?'], ['a.png', 'b.png'], []),
        (['--image', 'a.png', '--image', 'b.png', 'Why?'], ['a.png', 'b.png'], []),
        (['--image', 'a.png', '--json', 'Why?'], ['a.png'], []),
        (['--turn', 'Where?', 'Why?'], [], ['Where?']),
        (['--image', 'a.png', '--turn', 'Where?', 'Who?', 'Why?'], ['a.png'], ['Where?', 'Who?']),
        (['--image', 'a.png', '--', 'Why?'], ['a.png'], []),
    ],
)
def test_the_last_word_is_the_question_wherever_a_list_precedes_it(words, images, turns):
    args = parse(['ask', *words])
    assert (args.question, args.image, args.turn) == ('Why?', images, turns)


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['--image', 'a.png'],
        ['--turn', 'Where?'],
        ['--frames', '4', 'Why?'],
        ['--last', '4', 'Why?'],
        ['--video', 'a.mp4', '--frames', '0', 'Why?'],
        ['--video', 'a.mp4', '--frames', 'many', 'Why?'],
        ['--video', 'a.mp4', '--last', '-1', 'Why?'],
        ['--video', 'a.mp4', '--last', 'nan', 'Why?'],
        ['--timeout', '0', 'Why?'],
        ['--max-tokens', '-1', 'Why?'],
        ['--no-such-option', 'Why?'],
        ['Why?', 'And why not?'],
    ],
)
def test_bad_usage_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(['ask', *words])
    assert ended.value.code == 2
    assert 'error:' in capsys.readouterr().err


def test_a_file_at_the_end_is_not_taken_for_a_question(tmp_path, capsys):
    path = tmp_path / 'b.png'
    path.touch()
    with pytest.raises(SystemExit) as ended:
        parse(['ask', '--image', 'a.png', str(path)])
    assert ended.value.code == 2
    assert 'no QUESTION' in capsys.readouterr().err


@pytest.mark.parametrize('words', [['--help'], ['ask', '--help'], ['doctor', '--help']])
def test_help_names_the_exit_codes(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for line in ('  0  done', '  2  bad', '  3  the model', '130  interrupted'):
        assert line in text
