"""What the makers would write again is what is shipped; nothing is rendered, trained or compiled.

It shows that a change of the rules or of a maker leaves shipped files as they are, and keeps the
makers running between the times that somebody needs them.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.onnx_weights import GRAPHS, graph_files, read_weights
from support.sophgo.fixtures import FIXTURES, FOLDER

from edge_vlm_ros import demo
from tools.demo_model import demo_clip, onnx_graphs, pack, watch_clip
from tools.demo_model.size import ModelSize
from tools.sophgo.compile.checkpoints import CHECKPOINTS

DEMO = Path(demo.__file__).parent
QUESTIONS = Path(__file__).parents[1] / 'demo' / 'data' / 'questions.json'


def test_the_held_out_questions_follow_from_their_seeds():
    assert pack.draw().as_json() == QUESTIONS.read_text(encoding='utf-8')


def test_the_notes_of_the_demo_clip_follow_from_its_scene():
    notes = DEMO / 'clips' / f'{demo_clip.NAME}.json'
    assert demo_clip.as_json(demo_clip.truth()) == notes.read_text(encoding='utf-8')


def test_the_labels_of_the_watched_clip_follow_from_its_scene():
    labels = DEMO / 'recordings' / f'{watch_clip.NAME}.labels.json'
    assert watch_clip.labels() == json.loads(labels.read_text(encoding='utf-8'))


def test_the_demo_model_is_written_as_it_lies_there():
    files = graph_files(DEMO / 'model')
    weights, size = read_weights(files), ModelSize()
    makers = (onnx_graphs.vision_encoder, onnx_graphs.embed_tokens, onnx_graphs.decoder)
    for name, file, make in zip(GRAPHS, files, makers, strict=True):
        assert make(weights, size).graph == onnx.load(file).graph, name


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_the_compiled_fixtures_come_from_the_checkpoints_drawn_here(name, tmp_path):
    checkpoint = CHECKPOINTS[name]()
    checkpoint.write_config(tmp_path)
    shipped = FOLDER / 'config' / name
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in shipped.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name


@pytest.mark.parametrize('name', ['internvl3', 'internvl35', 'mllama', 'qwen2_5vl', 'qwen2vl'])
def test_and_so_do_the_weights_of_the_float_reference(name):
    fixture = next(f for f in FIXTURES.values() if f.weights == name)
    drawn, kept = CHECKPOINTS[name]().weights, fixture.load_weights()
    assert drawn.keys() == kept.keys()
    for key, values in drawn.items():
        assert np.array_equal(values.astype(np.float16).astype(np.float32), kept[key]), key
