"""`edge-vlm ask` as a user runs it: real processes, real exit codes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.long_answer import long_words

ROOT = Path(__file__).resolve().parents[2]


def test_it_answers_and_ends_with_0(ask, grey_image):
    done = ask('--image', grey_image(90), 'What is this?')
    assert (done.returncode, done.stderr) == (0, '')
    assert re.fullmatch(r'1 seen with .*: What is this\?\n', done.stdout)


def test_a_smolvlm_is_asked_by_its_folder(edge_vlm, grey_image, tmp_path):
    from support.tiny_smolvlm.make import make_tiny_smolvlm

    folder = make_tiny_smolvlm(tmp_path / 'model')
    words = ('ask', '--chip', 'cpu', '--model', folder, '--image', grey_image(90))
    done = edge_vlm(*words, '--max-tokens', 4, 'What is this?')
    assert done.returncode == 0, done.stderr
    choice = edge_vlm(*words, '--yes-no', 'Is this grey?')
    assert choice.stdout.strip().lower() in {'yes', 'no'}
    (folder / 'onnx' / 'vision_encoder.onnx').unlink()
    done = edge_vlm(*words, 'What is this?')
    assert done.returncode == 3
    assert 'missing onnx/vision_encoder.onnx' in done.stderr


def test_words_come_before_the_answer_is_whole(script, slow_command):
    script.write_text("answers: [{answer: '" + long_words(1000) + "'}]\nlatency: {decode_s: 0.02}")
    with subprocess.Popen(slow_command, stdout=subprocess.PIPE) as process:
        for _ in range(5):  # of 20 s
            assert 0 < len(os.read(process.stdout.fileno(), 4096)) < 2000
        assert process.poll() is None
        process.kill()


def test_the_words_together_are_the_answer(slow_command):
    done = subprocess.run(slow_command, stdout=subprocess.PIPE, check=True)
    assert done.stdout.startswith(b'one two three')


def test_characters_of_any_language_arrive_whole(ask):
    assert ask('which language').stdout == 'Grüße, 你好, 🙂.\n'


def test_a_terminal_without_those_characters_still_gets_an_answer(ask):
    env = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
    done = ask('which language', env=env)
    assert (done.returncode, done.stdout) == (0, 'Gr??e, ??, ?.\n')


def test_several_images_are_seen_in_order(ask, grey_image):
    done = ask('--image', grey_image(10), grey_image(200), 'Well?')
    dark, bright = map(float, re.search(r'2 seen with (\S+?),? (\S+):', done.stdout).groups())
    assert dark < bright


def test_a_video_gives_frames_spread_evenly_in_time(ask, grey_folder):
    folder = grey_folder(range(0, 90, 10))  # two a second: 0.0 to 4.0 s
    done = ask('--video', folder, '--frames', '3', '--json', 'Well?')
    stamps = [frame['header']['stamp'] for frame in json.loads(done.stdout)['frames']]
    assert [stamp['sec'] + stamp['nanosec'] / 1e9 for stamp in stamps] == [0.0, 2.0, 4.0]


def test_last_seconds_of_a_video_are_enough(ask, grey_folder):
    folder = grey_folder(range(0, 90, 10))
    done = ask('--video', folder, '--last', '1', '--json', 'Well?')
    stamps = [frame['header']['stamp'] for frame in json.loads(done.stdout)['frames']]
    assert [stamp['sec'] + stamp['nanosec'] / 1e9 for stamp in stamps] == [3.0, 3.5, 4.0]


def test_earlier_turns_are_asked_first_and_shown_in_json(ask, grey_image):
    done = ask('--image', grey_image(90), '--turn', 'first', 'second', '--json', 'third')
    answer = json.loads(done.stdout)
    assert [turn['text'].rpartition(' ')[2] for turn in answer['turns']] == ['first', 'second']
    assert answer['text'].endswith('third')
    assert answer['stats']['cached_prompt_tokens'] > 0


def test_earlier_turns_are_silent_unless_verbose(ask):
    quiet = ask('--turn', 'first', '--', 'second')
    assert (quiet.stdout.count('\n'), quiet.stderr) == (1, '')
    told = ask('--verbose', '--turn', 'first', '--', 'second')
    assert told.stdout == quiet.stdout
    assert '> first' in told.stderr


def test_stats_go_to_standard_error(ask, grey_image):
    done = ask('--stats', '--image', grey_image(90), 'Well?')
    assert re.search(r'1 frame, \d+ prompt tokens .* ended by stop', done.stderr)
    assert 'prompt tokens' not in done.stdout


def _fields(kind):
    """Read the field names of one of our messages from its file."""
    text = (ROOT / 'msg' / f'{kind}.msg').read_text(encoding='utf-8')
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return {line.split()[1] for line in lines if line and '=' not in line}


def test_json_has_the_fields_of_the_message(ask, grey_image):
    answer = json.loads(ask('--image', grey_image(90), '--json', 'Well?').stdout)
    assert set(answer) == _fields('Answer') | {'finish_reason_name', 'error_code_name'}
    assert set(answer['stats']) == _fields('AnswerStats')
    assert set(answer['frames'][0]) == _fields('FrameRef')
    assert (answer['finish_reason'], answer['finish_reason_name']) == (1, 'STOP')
    assert (answer['error_code'], answer['error_code_name']) == (0, 'NONE')
    assert (answer['chip'], Path(answer['model']).name) == ('scripted', 'script.yaml')


def _fill(message, fields):
    """Set a message's fields from plain data, as ROS tools do."""
    for name, value in fields.items():
        if isinstance(value, dict):
            _fill(getattr(message, name), value)
        elif value is None:  # JSON has no NaN.
            setattr(message, name, math.nan)
        elif not isinstance(value, list):
            setattr(message, name, value)


@pytest.mark.ros
def test_json_fits_the_types_of_a_real_message(ask, grey_image, monkeypatch):
    monkeypatch.setenv('ROS_PYTHON_CHECK_FIELDS', '1')
    from edge_vlm_ros.msg import Answer, FrameRef

    answer = json.loads(ask('--image', grey_image(90), '--json', 'Well?').stdout)
    message, frame = Answer(), FrameRef()
    _fill(message, {name: value for name, value in answer.items() if not name.endswith('_name')})
    _fill(frame, answer['frames'][0])
    assert message.text == answer['text']
    assert message.finish_reason == Answer.FINISH_STOP
    assert (frame.width, frame.height) == (64, 48)


@pytest.mark.parametrize(
    'words', [['--choice', 'Yes', 'No', '--'], ['--choice', 'Yes', '--choice', 'No', '--']]
)
def test_the_answer_is_one_of_the_choices(ask, words):
    answer = json.loads(ask('--json', *words, 'Yes or no?').stdout)
    assert (answer['text'], answer['choice'], answer['choice_valid']) == ('Yes', 'Yes', True)
    assert answer['choice_probability'] == 1.0
    assert ask(*words, 'Yes or no?').stdout == 'Yes\n'


def test_yes_or_no_has_choices_of_its_own(ask):
    done = ask('--yes-no', '--stats', 'Which way?')
    assert done.stdout in {'yes\n', 'no\n'}
    assert f"; choice '{done.stdout.strip()}', probability 0.500" in done.stderr
    refused = ask('--yes-no', '--choice', 'a', '--', 'Which way?')
    assert refused.returncode == 2
    assert '--yes-no has choices of its own' in refused.stderr


def test_a_probability_that_is_not_known_is_null(ask):
    found = ask('--json', 'Which way?').stdout
    assert '"choice_probability": null' in found
    assert json.loads(found)['choice_probability'] is None


def test_an_answer_ends_before_a_stop_string(ask):
    done = ask('--stop', 'five', '--stop', ' three', 'slow')
    assert done.stdout == 'one two\n'
    assert json.loads(ask('--stop', 'two', '--json', 'slow').stdout)['finish_reason'] == 4


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--choice', 'Yes', 'yes', '--'], 'choices[0] and choices[1] are the same'),
        (['--choice', ' ', '--'], 'choices[0] is blank'),
        (['--stop', ''], 'stop[0] is empty'),
        (['--repetition-penalty', '9'], 'repetition_penalty is from 0.1 to 2, not 9.0'),
        (['--repetition-penalty', 'nan'], 'repetition_penalty is from 0.1 to 2, not nan'),
    ],
)
def test_what_makes_no_sense_for_an_answer_ends_with_2(ask, words, says):
    done = ask(*words, 'Well?')
    assert done.returncode == 2
    assert says in done.stderr


def test_an_answer_that_repeats_itself_ends_with_3_and_one_line(ask, script):
    script.write_text(f"answers: [{{answer: '{'!' * 32}'}}]")
    done = ask('Well?')
    assert done.returncode == 3
    assert 'the model repeats itself' in done.stderr
    assert done.stdout.strip('!\n') == ''
    assert json.loads(ask('--json', 'Well?').stdout)['error_code_name'] == 'BAD_OUTPUT'


BAD_INPUT = {
    'an empty question': ['  '],
    'a question of 100 KB': ['x' * 100_000],
    'no such image': ['--image', 'no-such-file.png', '--', 'Well?'],
    'no such video': ['--video', 'no-such-file.mp4', 'Well?'],
    'not an image': ['--image', 'LICENSE', '--', 'Well?'],
    'not a video': ['--video', 'LICENSE', 'Well?'],
    'a webcam for a video': ['--video', '0', 'Well?'],
    'a temperature below zero': ['--temperature', '-1', 'Well?'],
    'a top_p above one': ['--top-p', '1.5', 'Well?'],
}


@pytest.mark.parametrize('words', BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_ends_with_2_and_one_line(ask, words):
    done = ask(*words)
    assert done.returncode == 2
    assert done.stdout == ''
    assert re.fullmatch(r'edge-vlm: .+\n', done.stderr)


def test_an_unknown_chip_ends_with_2(edge_vlm):
    done = edge_vlm('ask', '--chip', 'tpu', 'Well?')
    assert (done.returncode, done.stdout) == (2, '')
    assert 'bm1684x' in done.stderr


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--model', './no-such-model'], 'no-such-model'),
        (['--model', 'gpt'], "no model named 'gpt'"),
        (['--chip', 'bm1684x'], 'bm1684x'),
    ],
)
def test_a_model_that_cannot_be_used_ends_with_3(edge_vlm, words, says):
    done = edge_vlm('ask', *words, 'Well?')
    assert (done.returncode, done.stdout) == (3, '')
    assert done.stderr.startswith('edge-vlm: ')
    assert says in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_device_that_fails_ends_with_3_and_keeps_its_words(ask):
    done = ask('the broken device')
    assert done.returncode == 3
    assert 'the chip got hot' in done.stderr
    assert done.stdout.strip() != ''
    assert 'chip got hot' not in done.stdout


def test_json_tells_of_failures_too(ask):
    done = ask('--json', '--image', 'LICENSE', '--', 'Well?')
    answer = json.loads(done.stdout)
    assert (done.returncode, answer['error_code'], answer['text']) == (2, 102, '')
    assert set(answer) == _fields('Answer') | {'finish_reason_name', 'error_code_name'}
    assert 'LICENSE' in answer['message']


def test_a_timeout_ends_with_4_and_keeps_its_words(ask):
    done = ask('--timeout', '0.2', 'slow')
    assert done.returncode == 4
    assert 'one'.startswith(done.stdout[:3])
    assert 'much more' not in done.stdout


def test_ctrl_c_ends_with_130_and_whole_lines(slow_command):
    with subprocess.Popen(slow_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    words = (first + rest).decode()
    assert process.returncode == 130
    assert words.endswith('\n')
    assert 'one two three four five six seven eight nine ten and much'.startswith(words.strip())
    assert 'Traceback' not in errors.decode()


def test_ctrl_c_while_the_model_loads_ends_with_130_at_once(script, slow_command):
    script.write_text('latency: {load_s: 200}', encoding='utf-8')
    with subprocess.Popen([*slow_command, '--verbose'], stderr=subprocess.PIPE) as process:
        assert b'loading' in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b'edge-vlm: interrupted\n'


def test_a_reader_that_goes_away_ends_it_quietly(slow_command):
    with subprocess.Popen(slow_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b''


def test_the_same_seed_gives_the_same_answer(ask):
    words = ('--temperature', '1.5', '--seed', '7', '--json', 'Well?')
    first, second = (json.loads(ask(*words).stdout)['text'] for _ in range(2))
    assert first == second


def test_options_of_family_and_engine_reach_them(edge_vlm, grey_image):
    words = ['ask', '--image', grey_image(90), '--option', 'resize=fast', '--stats']
    done = edge_vlm(*words, '--option', 'threads=1', 'What do you see?')
    assert done.returncode == 0, done.stderr
    assert '16 of them vision' in done.stderr


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('min_pixels=5', "there is no option 'min_pixels' here: family internvl takes max_tiles,"),
        ('threads=many', "threads is a whole number, 0 or more, not 'many'"),
        ('threads', "'threads' is not of the form name=value"),
    ],
)
def test_an_option_that_cannot_be_ends_with_2(edge_vlm, option, message):
    done = edge_vlm('ask', '--option', option, 'Well?')
    assert (done.returncode, done.stdout) == (2, '')
    assert message in done.stderr


@pytest.mark.parametrize('length', [300, 5000, 60_000])
def test_a_question_of_any_length_after_images_is_a_question(ask, grey_image, length):
    question = 'x' * length
    done = ask('--image', grey_image(90), grey_image(20), question, '--json', '--max-tokens', '1')
    assert len(json.loads(done.stdout)['frames']) in {0, 2}
    assert 'too long' not in done.stderr.lower() or 'token' in done.stderr
    assert 'a fault of edge-vlm' not in done.stderr


@pytest.mark.parametrize('words', [['--video', 'x' * 5000], ['--image', 'x' * 5000, '--'],
                                   ['--model-dir', 'x' * 5000]])  # fmt: skip
def test_a_name_that_is_too_long_for_a_file_is_no_fault(ask, words):
    done = ask(*words, 'Well?')
    assert 'a fault of edge-vlm' not in done.stderr
    assert done.returncode == (0 if '--model-dir' in words else 2)


def test_a_model_name_too_long_for_a_file_ends_with_3(edge_vlm):
    for command in (['ask', '--model', './' + 'x' * 5000, 'Well?'], ['inspect', '/' + 'x' * 5000],
                    ['ask', '--model', '~nobody-of-that-name/x', 'Well?']):  # fmt: skip
        done = edge_vlm(*command)
        assert (done.returncode, done.stdout) == (3, '')
        assert 'no such file or folder' in done.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_ends_an_answer_in_order(slow_command, number):
    with subprocess.Popen(slow_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert (first + rest).decode().endswith('\n')
    assert 'Traceback' not in errors.decode()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_model_loads_ends_it_at_once(script, slow_command, number):
    script.write_text('latency: {load_s: 40}', encoding='utf-8')
    with subprocess.Popen([*slow_command, '--verbose'], stderr=subprocess.PIPE) as process:
        assert b'loading' in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        name = signal.Signals(number).name.encode()
        assert process.stderr.read() == b'edge-vlm: ended by ' + name + b'\n'


def test_a_hangup_that_is_ignored_stays_ignored(slow_command):
    with subprocess.Popen(
        ['nohup', *slow_command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGHUP)
        rest, _ = process.communicate(timeout=20)
    assert (process.returncode, rest.strip()[-4:]) == (0, b'that')


CONTROLS = '\\e[2J\\x07\\x9B31m\\x7F\\u202Ered\\u2066 ball\\rno'


def test_an_answer_on_a_terminal_has_no_control_codes_and_json_is_exact(ask, script):
    script.write_text(f'answers:\n  - answer: "{CONTROLS}"\n', encoding='utf-8')
    assert ask('Well?').stdout == '[2J31mred ballno\n'
    exact = '\x1b[2J\x07\x9b31m\x7f\u202ered\u2066 ball\rno'
    assert json.loads(ask('--json', 'Well?').stdout)['text'] == exact
    told = ask('--verbose', '--turn', 'Well?\x1b[2J', '--', 'And?').stderr
    assert '\x1b' not in told
    assert '[2J31mred ballno' in told


NOISE = """
import ctypes, os, runpy, sys
import edge_vlm_ros.engines.scripted.engine
libc = ctypes.CDLL(None)
def noisy(open_engine):
    def opened(*words):
        print('a library talks')
        os.write(1, b'so does another\\n')
        libc.puts(b'and one in C')
        libc.fflush(None)
        return open_engine(*words)
    return opened
module = edge_vlm_ros.engines.scripted.engine
package = sys.modules['edge_vlm_ros.engines.scripted']
for place in (module, package):
    if hasattr(place, 'open_engine'):
        place.open_engine = noisy(place.open_engine)
from edge_vlm_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_json_is_json_whatever_a_library_prints(script):
    import sys

    words = ['ask', '--chip', 'scripted', '--model', str(script), '--json', 'Well?']
    done = subprocess.run(
        [sys.executable, '-c', NOISE, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout)['error_code'] == 0
    for words in ('a library talks', 'so does another', 'and one in C'):
        assert words in done.stderr


def test_a_video_without_frames_takes_what_the_model_holds(ask, script, grey_folder):
    folder = grey_folder(range(0, 90, 10))
    text = script.read_text(encoding='utf-8')
    script.write_text(f'{text}limits: {{max_images: 3}}\n', encoding='utf-8')
    answer = json.loads(ask('--video', folder, '--json', 'Well?').stdout)
    assert (answer['error_code'], len(answer['frames'])) == (0, 3)
    shown = [frame['header']['stamp']['sec'] for frame in answer['frames']]
    assert (shown[0], shown[-1]) == (0, 4), 'evenly in time, both ends among them'
    fewer = json.loads(ask('--video', folder, '--frames', '4', '--json', 'Well?').stdout)
    assert (fewer['error_code'], len(fewer['frames'])) == (0, 3)
    assert 'of 4 frames 3' in fewer['message']
