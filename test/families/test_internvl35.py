"""InternVL3.5: InternVL3's form around Qwen3, which can think aloud and by default does not.

Tokens as published: Qwen3's, `<think>` not special, then `<img>`, `</img>`, `<IMG_CONTEXT>`.
Source: AXERA-TECH/ax-llm, scripts/internvl3-5_tokenizer; OpenGVLab/InternVL, conversation.py.
"""

import numpy as np
import pytest
from support.families import limits, load_family
from tokenizers import AddedToken, Tokenizer

from edge_vlm_ros.core import (
    Frame,
    FrameSource,
    SamplingOptions,
    ShownAs,
    VisionInputs,
    join_parts,
)
from edge_vlm_ros.text import FreeText

SYSTEM = '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。'  # noqa: E501, RUF001
THINKING = 'Enclose this entire thinking process within <think> and </think> tags.'
QWEN3 = {'architectures': ['Qwen3ForCausalLM'], 'model_type': 'qwen3', 'hidden_size': 64}


@pytest.fixture(scope='module')
def tokenizer(tokenizer_json):
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in ('<think>', '</think>')])
    return tokenizer


@pytest.fixture
def family(model_folder, tokenizer):
    folder = model_folder(llm_config=QWEN3, generation={'eos_token_id': 2})
    (folder / 'tokenizer.json').write_text(tokenizer.to_str(), encoding='utf-8')
    return load_family(folder, limits(context_tokens=4096, longest_prompt=2048))


def reference_ids(tokenizer, text):
    """The published tokenizer's, as transformers reads it."""
    transformers = pytest.importorskip('transformers')
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return fast(text, add_special_tokens=False)['input_ids']


def prompt_of(family, shown, question, system=''):
    prefix = family.render_prefix(shown, system)
    suffix = family.render_suffix(question, prefix.next_position, follows_images=bool(shown))
    return join_parts([prefix, suffix])


@pytest.mark.parametrize(
    ('way', 'labels'),
    [
        (ShownAs.ALONE, ['']),
        (ShownAs.AMONG_OTHERS, ['Frame1: ', 'Frame2: ', 'Frame3: ']),
        (ShownAs.ONE_OF_IMAGES, ['Image-1: ', 'Image-2: ']),
    ],
    ids=['one image', 'a clip', 'two cameras'],
)
def test_ids_are_those_of_the_published_chat(family, tokenizer, way, labels):
    """What `model.chat` of the model card makes of the question, written out."""
    pixels = np.zeros((1, 3, 1, 1), np.float32)
    shown = [VisionInputs(pixels, (1, 1, 1), 3, shown_as=way) for _ in labels]
    images = ''.join(f'{label}<img>{"<IMG_CONTEXT>" * 3}</img>\n' for label in labels)
    text = (
        f'<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{images}What is this?'
        '<|im_end|>\n<|im_start|>assistant\n'
    )
    prompt = prompt_of(family, shown, 'What is this?')
    assert prompt.tokens.tolist() == reference_ids(tokenizer, text)
    assert prompt.positions.tolist() == list(range(len(prompt)))


def test_to_think_is_asked_for_by_a_system_text_and_never_by_default(family, tokenizer):
    by_default = prompt_of(family, [], 'Why?')
    think = tokenizer.token_to_id('<think>')
    assert think not in by_default.tokens.tolist()
    asked = prompt_of(family, [], 'Why?', THINKING)
    spelt = family.tokenizer.decode(asked.tokens.tolist(), keep_special=True)
    assert spelt.startswith(f'<|im_start|>system\n{THINKING}<|im_end|>\n')


def test_thoughts_in_the_models_own_tokens_are_left_out(family, tokenizer):
    said = tokenizer.encode('<think>\nA red box.\n</think>\n\nIt is blue.').ids
    assert tokenizer.token_to_id('<think>') in said
    answer = FreeText(family.tokenizer, family.stop_tokens, SamplingOptions())
    shown = ''.join(answer.take(token) for token in [*said, min(family.stop_tokens)])
    assert shown == 'It is blue.'
    assert answer.has_thought


def test_two_cameras_share_the_tiles_of_one(family):
    room = Frame(np.zeros((480, 640, 3), np.uint8), 0, FrameSource('front'))
    alone = family.preprocess(room)
    shares = [family.preprocess_one_of(room, images) for images in (2, 3, 7, 40)]
    assert alone.grid == (13, 3, 4)
    assert [one.grid for one in shares] == [(7, 2, 3), (5, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert all(one.shown_as is ShownAs.ONE_OF_IMAGES for one in shares)
    assert shares[0].tokens == 7 * 16
