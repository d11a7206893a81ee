"""Measure the CPU engine beside plain `session.run`.

`python -m support.tiny_model.measure [MODEL]`, in the folder `test`.

The baseline is the loop that most examples show: numpy arrays in, numpy arrays out, the present
fed back as the past. Both run in turns in one process, so that a busy machine slows both alike.
With one thread, processor time is counted instead of time on the clock: it does not count the
processes beside this one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from edge_vlm_ros.core import ModelFiles
from edge_vlm_ros.engines import Engine, open_engine
from edge_vlm_ros.models import find_model
from support.tiny_model.prompts import decode_greedily, prefill_in_cuts, random_prompt

STEPS = 32
ROUNDS = 9


def plain_decode(files: ModelFiles, prompt: np.ndarray, threads: int) -> Callable[[], float]:
    """Make a function that prefills and gives the seconds of one decode step."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    embed, decoder = (
        onnxruntime.InferenceSession(str(files.weights[part]), settings)
        for part in ('embed_tokens', 'decoder_model_merged')
    )
    past_names = [i.name for i in decoder.get_inputs() if i.name.startswith('past')]
    wanted = ['logits', *(name.replace('past_key_values', 'present') for name in past_names)]
    shapes: dict[str, Any] = {i.name: i.shape for i in decoder.get_inputs()}
    empty = [(1, shapes[name][1], 0, shapes[name][3]) for name in past_names]
    clock = time.process_time if threads == 1 else time.perf_counter

    def step(tokens: np.ndarray, past: list[np.ndarray]) -> tuple[int, list[np.ndarray]]:
        start = past[0].shape[2]
        count = len(tokens)
        feeds = dict(zip(past_names, past, strict=True))
        feeds['inputs_embeds'] = embed.run(None, {'input_ids': tokens[None]})[0]
        feeds['attention_mask'] = np.ones((1, start + count), np.int64)
        feeds['position_ids'] = np.arange(start, start + count)[None]
        feeds['num_logits_to_keep'] = np.array(1, np.int64)
        logits, *present = decoder.run(wanted, feeds)
        return int(logits[0, -1].argmax()), present

    def run() -> float:
        past = [np.zeros(shape, np.float32) for shape in empty]
        token, past = step(prompt, past)
        began = clock()
        for _ in range(STEPS):
            token, past = step(np.array([token]), past)
        return (clock() - began) / STEPS

    return run


def engine_decode(engine: Engine, tokens: int, threads: int) -> Callable[[], float]:
    """Make the same function for the engine."""
    part = random_prompt(0, images=0, rows=0, placeholder=200, words=tokens // 2)
    clock = time.process_time if threads == 1 else time.perf_counter

    def run() -> float:
        engine.kv.truncate(0)
        prefill_in_cuts(engine, part, {})
        began = clock()
        decode_greedily(engine, part.next_position, STEPS)
        return (clock() - began) / STEPS

    return run


def main() -> None:
    """Print one line for each prompt length and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', nargs='?', default='demo')
    files = find_model('cpu', parser.parse_args().model)
    print(f'{"tokens":>6} {"threads":>7} {"plain ms":>9} {"engine ms":>9} {"ratio":>6}')
    for tokens in (64, 256, 512):
        prompt = np.random.default_rng(0).integers(0, 200, tokens)
        for threads in (1, 2):
            engine = open_engine('cpu', files, options={'threads': threads})
            runs = (plain_decode(files, prompt, threads), engine_decode(engine, tokens, threads))
            times = [[run() for run in runs] for _ in range(ROUNDS)]
            plain, ours = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
            print(f'{tokens:6} {threads:7} {plain:9.3f} {ours:9.3f} {ours / plain:6.2f}')
            engine.close()


if __name__ == '__main__':
    main()
