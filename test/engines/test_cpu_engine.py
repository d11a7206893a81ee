"""The CPU engine: what it reads from the files, what it refuses, how it ends."""

import json
import shutil

import numpy as np
import pytest
from support.tiny_model.prompts import (
    decode_greedily,
    moved,
    random_inputs,
    random_prompt,
    scores,
)

from edge_vlm_ros.core import (
    BadRequestError,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
    ModelFileError,
    NotReadyError,
    PromptPart,
    PromptTooLongError,
    SamplingOptions,
    Spliced,
    VisionInputs,
    VisionSpan,
    text_part,
)
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model

PLACEHOLDER = 261


def run(engine, part, features, count=5):
    engine.kv.truncate(0)
    engine.prefill(part, features)
    return decode_greedily(engine, part.next_position, count)


@pytest.fixture
def make_model(tmp_path):
    """Write a tiny model with other sizes."""
    from support.tiny_model.config import TinyConfig
    from support.tiny_model.make import make_tiny_model

    def make(name='model', **sizes):
        return make_tiny_model(tmp_path / name, TinyConfig(**sizes))

    return make


@pytest.fixture
def broken(tiny_folder, tmp_path):
    """Give a copy of the tiny model, to be spoiled."""
    return shutil.copytree(tiny_folder, tmp_path / 'broken')


def open_folder(folder, **options):
    return open_engine('cpu', find_model('cpu', str(folder)), options=options)


def change_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_limits_are_read_from_the_files(tiny_engine):
    limits = tiny_engine.limits
    assert (limits.context_tokens, limits.longest_prompt) == (1024, 1023)
    assert (limits.vocab_size, limits.hidden_size, limits.hidden_dtype) == (262, 32, 'float32')
    assert limits.tile_px == 56
    assert limits.can_extend_prefix
    assert limits.has_logits
    assert not limits.samples_on_chip


def test_an_image_of_several_tiles_is_the_tiles_one_after_another(tiny_engine):
    both = random_inputs(1, px=56, rows=8, tiles=2)
    whole = tiny_engine.encode(both).rows
    singly = [
        tiny_engine.encode(VisionInputs(both.pixels[i : i + 1], (1, 1, 1), 4)).rows
        for i in range(2)
    ]
    assert whole.shape == (8, 32)
    np.testing.assert_array_equal(whole, np.concatenate(singly))


def test_features_belong_to_the_caller(tiny_engine):
    inputs = random_inputs(1, px=56, rows=4)
    rows = tiny_engine.encode(inputs).rows
    kept = rows.copy()
    tiny_engine.encode(random_inputs(2, px=56, rows=4))
    np.testing.assert_array_equal(rows, kept)
    rows[:] = 0  # writable: not ONNX Runtime's memory


def test_pixels_of_another_size_are_refused(tiny_engine):
    with pytest.raises(EdgeVlmError, match=r'\(1, 3, 28, 28\)'):
        tiny_engine.encode(random_inputs(1, px=28, rows=1))


def test_a_frame_with_another_number_of_placeholders_is_refused(tiny_engine):
    with pytest.raises(EdgeVlmError, match='gave 4 rows, the prompt has room for 5'):
        tiny_engine.encode(random_inputs(1, px=56, rows=5))


def test_the_context_is_filled_to_the_last_token_and_no_further(tiny_files):
    engine = open_engine('cpu', tiny_files, options={'context_tokens': 30})
    engine.prefill(text_part(range(29), 0), {})
    engine.decode(1, 29)
    assert engine.kv.length == 30
    last = scores(engine)
    with pytest.raises(PromptTooLongError, match='1 tokens do not fit after 30'):
        engine.decode(1, 30)
    with pytest.raises(PromptTooLongError):
        engine.prefill(text_part([1], 30), {})
    assert engine.kv.length == 30
    np.testing.assert_array_equal(scores(engine), last)


def test_an_empty_part_changes_nothing(tiny_engine):
    tiny_engine.prefill(text_part([1, 2], 0), {})
    before = scores(tiny_engine)
    tiny_engine.prefill(text_part((), 2), {})
    assert tiny_engine.kv.length == 2
    np.testing.assert_array_equal(scores(tiny_engine), before)


def test_truncate_refuses_lengths_that_are_not_there(tiny_engine):
    tiny_engine.prefill(text_part([1, 2], 0), {})
    for length in (-1, 3):
        with pytest.raises(ValueError, match=f'2 tokens to {length}'):
            tiny_engine.kv.truncate(length)
    assert tiny_engine.kv.length == 2


def test_there_is_no_next_token_before_the_first_or_behind_a_cut(tiny_engine):
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        tiny_engine.next_token(SamplingOptions())
    tiny_engine.prefill(text_part([1, 2], 0), {})
    tiny_engine.kv.truncate(1)
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        tiny_engine.next_token(SamplingOptions())
    tiny_engine.decode(2, 1)
    tiny_engine.next_token(SamplingOptions())


@pytest.mark.parametrize(
    ('features', 'message'),
    [
        ({}, 'no spliced features for image 0'),
        ({0: Spliced(np.zeros((3, 32), np.float32))}, 'rows 0 to 4 of image 0, which has 3'),
        ({0: Spliced(np.zeros((4, 31), np.float32))}, 'are 31 wide, the language model 32'),
    ],
)
def test_features_that_do_not_fit_the_prompt_are_refused(tiny_engine, features, message):
    part = random_prompt(0, images=1, rows=4, placeholder=PLACEHOLDER)
    with pytest.raises(EdgeVlmError, match=message):
        tiny_engine.prefill(part, features)
    assert tiny_engine.kv.length == 0


def test_ids_outside_the_vocabulary_are_refused(tiny_engine):
    for wrong in (-1, 262):
        with pytest.raises(EdgeVlmError, match=f'token id {wrong} '):
            tiny_engine.prefill(text_part([1, wrong], 0), {})


def test_three_rows_of_positions_need_a_model_that_takes_them(tiny_engine, make_model):
    part = text_part(range(8), 0)
    rows = PromptPart(part.tokens, np.tile(part.positions, (3, 1)), 8)
    with pytest.raises(EdgeVlmError, match='three rows of positions'):
        tiny_engine.prefill(rows, {})
    engine = open_folder(make_model(mrope=True))
    expected = run(tiny_engine, part, {})
    assert run(engine, rows, {})[0] == expected[0]
    assert run(engine, part, {})[0] == expected[0]  # decode steps have one row


def test_positions_are_data_and_may_jump(tiny_engine):
    part = text_part(range(8), 0)
    tiny_engine.prefill(part, {})
    near = scores(tiny_engine)
    tiny_engine.kv.truncate(4)
    tiny_engine.prefill(moved(text_part(range(4, 8), 4), 40), {})
    assert np.abs(scores(tiny_engine) - near).max() > 1e-3


def test_half_precision_files_answer_nearly_alike(tiny_engine, make_model):
    engine = open_folder(make_model(half=True))
    assert engine.limits.hidden_dtype == 'float16'
    part = random_prompt(3, images=1, rows=4, placeholder=PLACEHOLDER)
    inputs = random_inputs(3, px=56, rows=4)
    rows = [
        run(chosen, part, {0: chosen.encode(inputs)}, 1)[1] for chosen in (engine, tiny_engine)
    ]
    np.testing.assert_allclose(*rows, atol=0.05)


def test_a_decoder_without_num_logits_to_keep_answers_alike(tiny_engine, broken):
    import onnx
    from onnx import numpy_helper

    path = broken / 'onnx' / 'decoder_model_merged.onnx'
    model = onnx.load(path)
    for info in list(model.graph.input):
        if info.name == 'num_logits_to_keep':
            model.graph.input.remove(info)
    # 0 keeps the logits of all tokens, as older exports do.
    every = numpy_helper.from_array(np.array(0, np.int64), 'num_logits_to_keep')
    model.graph.initializer.append(every)
    onnx.save(model, path)
    part = text_part(range(20), 0)
    assert run(open_folder(broken), part, {})[0] == run(tiny_engine, part, {})[0]


def test_after_close_every_call_says_so(tiny_files):
    engine = open_engine('cpu', tiny_files)
    engine.prefill(text_part([1], 0), {})
    engine.close()
    engine.close()
    calls = [
        lambda: engine.encode(random_inputs(0, px=56, rows=4)),
        lambda: engine.prefill(text_part([1], 0), {}),
        lambda: engine.next_token(SamplingOptions()),
        lambda: engine.decode(1, 0),
    ]
    for call in calls:
        with pytest.raises(NotReadyError, match='closed'):
            call()
    assert engine.limits.hidden_size == 32


def test_options_the_engine_does_not_have_are_refused(tiny_files):
    for options in ({'speed': 3}, {'threads': 'all'}, {'threads': -1}, {'prefill_chunk': 0}):
        with pytest.raises(BadRequestError, match=next(iter(options))) as caught:
            open_engine('cpu', tiny_files, options=options)
        assert caught.value.code is ErrorCode.UNSUPPORTED_OPTION


def test_the_cpu_is_one_device(tiny_files):
    open_engine('cpu', tiny_files, [0]).close()
    with pytest.raises(DeviceError, match=r'\[1\]'):
        open_engine('cpu', tiny_files, [1])


def test_a_chip_that_is_not_there_is_named_with_those_that_are(tiny_files):
    with pytest.raises(BadRequestError, match=r"no chip 'gpu'; chips are: .*cpu.*scripted"):
        open_engine('gpu', tiny_files)


# --- files that do not fit ---------------------------------------------------------------------

PARTS = ('vision_encoder', 'embed_tokens', 'decoder_model_merged')


@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize('kept', [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_named(broken, part, kept):
    path = broken / 'onnx' / f'{part}.onnx'
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept >= 1 else int(kept * len(whole))])
    with pytest.raises(ModelFileError, match=f'{part}.onnx'):
        open_folder(broken)


@pytest.mark.parametrize('part', PARTS)
def test_a_file_that_is_no_model_is_named(broken, part):
    (broken / 'onnx' / f'{part}.onnx').write_text('<html>404: not found</html>')
    with pytest.raises(ModelFileError, match=f'{part}.onnx: damaged, or no ONNX file'):
        open_folder(broken)


@pytest.mark.parametrize(
    ('part', 'other', 'tensor'),
    [
        ('vision_encoder', 'embed_tokens', 'pixel_values'),
        ('embed_tokens', 'decoder_model_merged', 'input_ids'),
        ('decoder_model_merged', 'vision_encoder', 'inputs_embeds'),
    ],
)
def test_a_file_in_the_place_of_another_is_named_with_its_tensor(broken, part, other, tensor):
    shutil.copy(broken / 'onnx' / f'{other}.onnx', broken / 'onnx' / f'{part}.onnx')
    with pytest.raises(ModelFileError, match=f'{part}.onnx: {tensor}: expected an input, found'):
        open_folder(broken)


@pytest.mark.parametrize('part', PARTS)
def test_a_file_of_another_width_is_refused_with_both_widths(broken, make_model, part):
    other = make_model('other', hidden=48)
    shutil.copy(other / 'onnx' / f'{part}.onnx', broken / 'onnx' / f'{part}.onnx')
    with pytest.raises(ModelFileError, match=r'expected width 32.*found 48'):
        open_folder(broken)


def test_a_decoder_of_another_depth_is_refused(broken, make_model):
    name = 'onnx/decoder_model_merged.onnx'
    shutil.copy(make_model('other', layers=3) / name, broken / name)
    with pytest.raises(ModelFileError, match=r'past_key_values: expected 2 layers.*found 3'):
        open_folder(broken)


def test_a_decoder_that_gives_no_present_is_refused(broken):
    import onnx

    path = broken / 'onnx' / 'decoder_model_merged.onnx'
    model = onnx.load(path)
    for info in list(model.graph.output):
        if info.name == 'present.1.value':
            model.graph.output.remove(info)
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r'present\.1\.value: expected an output'):
        open_folder(broken)


def test_a_decoder_without_a_cache_is_refused(broken):
    import onnx

    path = broken / 'onnx' / 'decoder_model_merged.onnx'
    model = onnx.load(path)
    for info in model.graph.input:
        if info.name.startswith('past_key_values'):
            for node in model.graph.node:
                node.input[:] = [info.name.upper() if n == info.name else n for n in node.input]
            info.name = info.name.upper()
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match='no KV cache in this graph'):
        open_folder(broken)


def test_other_feature_rows_than_config_says_are_refused(broken):
    change_config(broken, downsample_ratio=0.25)
    with pytest.raises(ModelFileError, match=r'image_features: expected 1 rows a tile.*found 4'):
        open_folder(broken)


def test_another_tile_size_than_config_says_is_refused(broken):
    vision = json.loads((broken / 'config.json').read_text())['vision_config']
    change_config(broken, vision_config={**vision, 'image_size': 448})
    with pytest.raises(ModelFileError, match=r'pixel_values.*56.*448'):
        open_folder(broken)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"llm_config": {"hidden_size": 32}}', ': .*max_position_embeddings'),
        ('{"llm_config": ', ' is damaged'),
        ('[]', r' holds \[\], not a JSON object'),
    ],
)
def test_a_bad_config_is_named(broken, content, message):
    (broken / 'config.json').write_text(content)
    with pytest.raises(ModelFileError, match=f'config.json{message}'):
        open_folder(broken)


def test_a_vision_span_may_start_in_the_middle_of_an_image(tiny_engine):
    features = {0: tiny_engine.encode(random_inputs(1, px=56, rows=4))}
    tokens = np.full(2, PLACEHOLDER, np.int64)
    whole = PromptPart(np.full(4, PLACEHOLDER, np.int64), np.arange(4), 4, (VisionSpan(0, 0, 4),))
    tiny_engine.prefill(whole, features)
    at_once = scores(tiny_engine)
    tiny_engine.kv.truncate(2)
    rest = PromptPart(tokens, np.arange(2, 4), 4, (VisionSpan(0, 0, 2, first_row=2),))
    tiny_engine.prefill(rest, features)
    np.testing.assert_allclose(scores(tiny_engine), at_once, atol=1e-4)
