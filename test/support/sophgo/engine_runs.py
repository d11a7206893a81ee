"""Drive the Sophgo engine through whole conversations and compare it with the float reference.

For `support.sophgo.emulator.call`: these functions run in the process with the emulated chip and
give back plain numbers, which the tests judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    EdgeVlmError,
    EngineLimits,
    ModelFiles,
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
    VisionSpan,
)
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.base import ChosenToken, Logits
from edge_vlm_ros.engines.sophgo.bmodel_file import BmodelFile
from edge_vlm_ros.engines.sophgo.contract import Contract
from edge_vlm_ros.engines.sophgo.engine import SophgoEngine
from edge_vlm_ros.engines.sophgo.plan import RunCosts
from support.sophgo.fixtures import FIXTURES, Fixture
from support.sophgo.reference import (
    Array,
    Decoder,
    Image,
    SamplingParameters,
    Trace,
    cosine,
    internvl_vision,
    mllama_vision,
    qwen2_5vl_vision,
    qwen2vl_vision,
    qwen3vl_vision,
    sampling_head,
)

GREEDY: Final = SamplingOptions()
DEAR_STEPS: Final = RunCosts(((1, 1.0),), run_s=0.5)
"""With these, whatever the prefill nets can run runs through them."""
_SEED: Final = 5
_PLACEHOLDER: Final = 0
_IMAGE_TOKEN: Final = 6
_GRIDS: Final = {
    # Patches of images, one after the other; of Qwen2.5-VL's more than one window each.
    'qwen2_vl': ((4, 6), (4, 4)),
    'qwen2_5_vl': ((4, 12), (2, 10)),
    'qwen3_vl': ((4, 6), (4, 4)),
}
_PATCH_VISION: Final = {'qwen2_vl': qwen2vl_vision, 'qwen2_5_vl': qwen2_5vl_vision}


@dataclass(frozen=True)
class Point:
    """One place where engine and reference were compared.

    Attributes:
        where: Scenario and step.
        cosine: Of the last hidden state.
        token: The engine's next token.
        expected: The reference's.
        gap: By how much the reference's token leads its second.
    """

    where: str
    cosine: float
    token: int
    expected: int
    gap: float


@dataclass(frozen=True)
class Outcome:
    """What a run of scenarios gave.

    Attributes:
        points: All comparisons.
        limits: The engine's.
        plans: Pieces of each prefill, by scenario.
        refusals: What the engine refused, by scenario: the error's type and its message.
        step: Counters of one decoded token.
        left_bytes: Device memory still held after closing.
        left_engines: Engines still loaded after closing.
    """

    points: list[Point]
    limits: EngineLimits
    plans: dict[str, tuple[int, ...]]
    refusals: dict[str, tuple[str, str]]
    step: dict[str, Any]
    left_bytes: int
    left_engines: int


def model_files(fixture: Fixture, path: str | Path) -> ModelFiles:
    """Name the files of an unpacked fixture as `models.find_model` does."""
    bmodel = Path(path)
    folder = fixture.config_folder()
    return ModelFiles(fixture.name, fixture.chip, bmodel.parent, folder, {'model': bmodel})


def open_fixture(name: str, path: str) -> SophgoEngine:
    """Open a fixture's engine through the registry."""
    fixture = FIXTURES[name]
    engine = open_engine(fixture.chip, model_files(fixture, path))
    assert isinstance(engine, SophgoEngine)
    return engine


def run_scenarios(name: str, path: str, scenarios: Sequence[str]) -> Outcome:
    """Run scenarios, methods of `Bench`, on a fixture."""
    from sophon import standin

    bench = Bench(name, path)
    for scenario in scenarios:
        bench.engine.kv.truncate(0)
        getattr(bench, scenario)()
    step = bench.count_step()
    bench.engine.close()
    bench.engine.close()  # twice is safe
    return Outcome(
        points=bench.points,
        limits=bench.engine.limits,
        plans=bench.plans,
        refusals=bench.refusals,
        step=step,
        left_bytes=standin.live_device_bytes(),
        left_engines=standin.live_engines(),
    )


@dataclass
class Talk:
    """A prompt as it grows: for the engine, and for the reference.

    Attributes:
        ids: Tokens; placeholders stand for vision rows.
        rows: The reference's embeddings, vision rows in their places.
        positions: One tuple a token, of 1 or 3 numbers.
        spans: Where images stand.
        next_position: Of the token after the last.
        image: What a cross-attention model looks at.
        deepstack: What is added after each of the first layers, by token: () = a word.
    """

    axes: int
    ids: list[int] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    positions: list[tuple[int, ...]] = field(default_factory=list)
    spans: list[VisionSpan] = field(default_factory=list)
    next_position: int = 0
    image: Image | None = None
    deepstack: list[tuple[Array, ...]] = field(default_factory=list)

    def part(self, start: int, stop: int) -> PromptPart:
        """Return the tokens [start, stop) for the engine."""
        positions = np.array(self.positions, np.int64).T
        whole = PromptPart(
            tokens=np.array(self.ids, np.int64),
            positions=positions if self.axes > 1 else positions[0],
            next_position=self.next_position,
            spans=tuple(self.spans),
        )
        return whole.slice(start, stop)

    def cut(self, length: int) -> Talk:
        """Return a talk of the first tokens."""
        spans = [span for span in self.spans if span.start < length]
        return Talk(
            self.axes,
            self.ids[:length],
            self.rows[:length],
            self.positions[:length],
            spans,
            max(max(place) for place in self.positions[:length]) + 1,
            self.image,
            self.deepstack[:length],
        )

    def added(self) -> list[Array]:
        """Return what is added after each of the first layers, (tokens, width)."""
        layers = max(len(rows) for rows in self.deepstack)
        width = len(self.rows[0])
        nothing = np.zeros(width, np.float32)
        return [
            np.array([rows[i] if rows else nothing for rows in self.deepstack])
            for i in range(layers)
        ]


class Bench:
    """One fixture's engine, its reference, and the scenarios that compare them.

    Args:
        name: The fixture's.
        path: Its unpacked bmodel.
    """

    def __init__(self, name: str, path: str) -> None:
        fixture = FIXTURES[name]
        self._config = fixture.load_config()
        self._weights = fixture.load_weights()
        self._decoder = Decoder(self._config, self._weights)
        self._kind = str(self._config['model_type'])
        self._random = np.random.default_rng(_SEED)
        self.engine = open_fixture(name, path)
        self._features: dict[int, VisionFeatures] = {}
        self._made: dict[int, tuple[VisionInputs, Array]] = {}
        self._deep: dict[int, list[Array]] = {}
        self.points: list[Point] = []
        self.plans: dict[str, tuple[int, ...]] = {}
        self.refusals: dict[str, tuple[str, str]] = {}

    # -- scenarios --------------------------------------------------------------------------------

    def text(self) -> None:
        """Words alone."""
        talk = self._talk()
        self._say(talk, 7)
        self._prefill(talk, 0, 'text')
        self._answer(talk, 'text', 1)

    def talk(self) -> None:
        """A question about one image, an answer, another question; then another one instead."""
        talk = self._one_image()
        self._prefill(talk, 0, 'first turn')
        self._answer(talk, 'first turn', 2)
        start = len(talk.ids)
        self._say(talk, 3)
        self._prefill(talk, start, 'second turn')
        self._answer(talk, 'second turn', 1)
        kept = start - 1
        self.engine.kv.truncate(kept)
        other = talk.cut(kept)
        self._say(other, 2)
        self._prefill(other, kept, 'after the cut')
        self._compare(other, 'after the cut')

    def images(self) -> None:
        """Several images, apart from each other."""
        talk = self._talk()
        self._say(talk, 4)
        self._show(talk, 0)
        self._say(talk, 2)
        self._show(talk, 1)
        self._say(talk, 3)
        self._prefill(talk, 0, 'images')
        self._compare(talk, 'images')

    def ahead(self) -> None:
        """The prefix is prepared up to the middle of the image; the rest follows."""
        talk = self._talk()
        self._say(talk, 2)
        self._show(talk, 0)
        self._say(talk, 1)
        first = talk.spans[0].stop - 2
        self._prefill(talk, 0, 'ahead', first)
        self._prefill(talk, first, 'the rest')
        self._compare(talk, 'ahead')

    def inside(self) -> None:
        """What an image's own tokens become: two of them last in a piece, one after a step."""
        talk = self._talk()
        self._say(talk, 3)
        self._show(talk, 0)
        stop = talk.spans[0].stop
        for start, end in ((0, stop - 2), (stop - 2, stop - 1)):
            self._prefill(talk, start, f'inside, up to {end}', end)
            self._compare(talk.cut(end), f'inside, up to {end}')

    def by_steps(self) -> None:
        """A short prompt, image and all, through the decode nets from an empty cache."""
        talk = self._talk()
        self._say(talk, 1)
        if self._kind != 'mllama':  # there an image can only be shown to a piece
            self._show(talk, 1)
        self._say(talk, 2)
        for i in range(len(talk.ids)):
            self.engine.prefill(talk.part(i, i + 1), self._features)
        self._compare(talk, 'by steps')

    def given_up(self) -> None:
        """A second turn is given up on the way; another one is put in its place."""
        talk = self._one_image()
        self._prefill(talk, 0, 'kept')
        start = len(talk.ids)
        self._say(talk, 3)
        asked = iter(range(100))
        piece = self.engine.plan_prefill(len(talk.ids) - start)[0]
        part = talk.part(start, start + piece)
        # A step is given up before it, a run of the prefill nets between two of its layers.
        last = 0 if piece == 1 else 2
        self._refused(
            'given up', self.engine.prefill, part, self._features, lambda: next(asked) >= last
        )
        self._refused('no token of it', self.engine.next_token, GREEDY)
        other = talk.cut(start)
        self._say(other, 2)
        self._prefill(other, start, 'after giving up')
        self._compare(other, 'after giving up')

    def full(self) -> None:
        """A prompt that fills the context to the last row; then one token too many."""
        talk = self._one_image()
        context = self.engine.limits.context_tokens
        self._say(talk, context - len(talk.ids))
        self._prefill(talk, 0, 'full')
        self._compare(talk, 'full')
        self._refused('a token after a full context', self.engine.decode, 5, context)
        self._refused('no room for a piece', self.engine.prefill, self._text_part(1), {})
        self.engine.kv.truncate(0)
        self._refused('a prompt of one token too many', self._prefill_text, context + 1)
        self.points.append(self._length_point())

    def second_image(self) -> None:
        """A model that attends to one image is shown another one."""
        talk = self._one_image()
        part = talk.part(0, len(talk.ids))
        twice = PromptPart(
            part.tokens,
            part.positions,
            part.next_position,
            (VisionSpan(0, 2, 3), VisionSpan(1, 4, 5)),
        )
        self._refused('two images', self.engine.prefill, twice, {0: self._features[0]})
        self._prefill(talk, 0, 'one image')
        late = PromptPart(
            np.array([_IMAGE_TOKEN]), np.array([len(talk.ids)]), 0, (VisionSpan(1, 0, 1),)
        )
        self._refused('a later image', self.engine.prefill, late, {1: self._features[0]})
        self._compare(talk, 'still the first image')

    def after_image(self) -> None:
        """Words alone after a conversation with an image: nothing of it may be left."""
        talk = self._one_image()
        self._prefill(talk, 0, 'with image')
        self.engine.kv.truncate(0)
        talk = self._talk()
        self._say(talk, 6)
        self._prefill(talk, 0, 'without image')
        self._answer(talk, 'without image', 1)

    def clip(self) -> None:
        """Two frames in one launch of the vision tower: each sees only itself."""
        height, width = _GRIDS[self._kind][1]
        each = height * width
        patches = self._normal(2 * each, self._patch_values)
        inputs = VisionInputs(patches, (2, height, width), each // 2, table_side=self._table_side)
        found = self.engine.encode(inputs)
        places = np.concatenate([_patch_places(height, width)] * 2)
        rows, deep = self._patch_vision(patches, places, (each, each))
        self._note_vision('clip: vision', found, rows, deep)

    def sampled(self) -> None:
        """Tokens drawn on the chip, against the head's own rule on the very same logits."""
        talk = self._one_image()
        self._prefill(talk, 0, 'sampled')
        too_many = SamplingOptions(temperature=1.0, top_k=1000)
        scores = self.engine.next_token(too_many)
        assert isinstance(scores, Logits)
        logits = scores.values.copy()
        self._note('logits for the host', talk, int(logits.argmax()))
        length = self.engine.kv.length
        for seed, options in enumerate(_SAMPLINGS):
            chosen = self.engine.next_token(
                SamplingOptions(seed=seed, temperature=options.temperature, top_p=options.top_p)
            )
            assert isinstance(chosen, ChosenToken)
            weights, ids = sampling_head(logits, [0], options)
            draw = np.random.default_rng((seed, length)).random()
            index = int(np.searchsorted(weights.cumsum(), draw * weights.sum(), side='right'))
            self.points.append(
                Point(f'sampled {seed}', 1.0, chosen.token, int(ids[index]), np.inf)
            )

    # -- what is counted --------------------------------------------------------------------------

    def count_step(self) -> dict[str, Any]:
        """Return the counters of one greedy token after some others, without a head's warm-up."""
        from sophon import standin

        self.engine.kv.truncate(0)
        talk = self._talk()
        self._say(talk, 3)
        self._prefill(talk, 0, 'counted')
        token = self._token()
        for _ in range(2):
            standin.reset()
            self.engine.decode(token, talk.next_position)
            token = self._token()
            talk.next_position += 1
        return dict(standin.counters().as_dict())

    # -- the two sides ----------------------------------------------------------------------------

    def _talk(self) -> Talk:
        return Talk(axes=3 if self._kind in _GRIDS else 1)

    def _say(self, talk: Talk, count: int) -> None:
        for token in self._random.integers(20, 250, count):
            self._add_token(talk, int(token))

    def _add_token(self, talk: Talk, token: int) -> None:
        talk.ids.append(token)
        talk.rows.append(self._decoder.embed([token])[0])
        talk.deepstack.append(())
        talk.positions.append((talk.next_position,) * talk.axes)
        talk.next_position += 1

    def _one_image(self) -> Talk:
        talk = self._talk()
        self._say(talk, 4)
        self._show(talk, 0)
        self._say(talk, 5)
        return talk

    def _show(self, talk: Talk, number: int) -> None:
        """Add an image to a talk; encode it and compare, the first time."""
        if number not in self._made:
            self._made[number] = self._make_image(number)
            inputs, expected = self._made[number]
            found = self.engine.encode(inputs)
            self._features[number] = found
            self._note_vision(f'vision {number}', found, expected, self._deep.get(number, []))
        inputs, rows = self._made[number]
        start = len(talk.ids)
        if self._kind == 'mllama':
            tiles = self._config['vision_config']['max_num_tiles']
            states = rows.reshape(tiles, -1, rows.shape[-1])
            talk.image = Image(states, inputs.grid[1] * inputs.grid[2], start)
            self._add_token(talk, _IMAGE_TOKEN)
        else:
            self._splice(talk, inputs, rows, self._deep.get(number, []))
        talk.spans.append(VisionSpan(number, start, len(talk.ids)))

    def _splice(
        self, talk: Talk, inputs: VisionInputs, rows: Array, deep: Sequence[Array]
    ) -> None:
        talk.ids += [_PLACEHOLDER] * len(rows)
        talk.rows += list(rows)
        talk.deepstack += [tuple(layer[i] for layer in deep) for i in range(len(rows))]
        first = talk.next_position
        if talk.axes == 1:
            talk.positions += [(first + i,) for i in range(len(rows))]
            talk.next_position += len(rows)
            return
        _, height, width = (side // 2 or 1 for side in inputs.grid)
        for i in range(len(rows)):
            talk.positions.append((first, first + i // width, first + i % width))
        talk.next_position += max(height, width)

    def _make_image(self, number: int) -> tuple[VisionInputs, Array]:
        if self._kind in _GRIDS:
            height, width = _GRIDS[self._kind][number]
            patches = self._normal(height * width, self._patch_values)
            places = _patch_places(height, width)
            rows, self._deep[number] = self._patch_vision(patches, places)
            grid, side = (1, height, width), self._table_side
            return VisionInputs(patches, grid, len(rows), table_side=side), rows
        sizes = self._config['vision_config']
        px = sizes['image_size']
        if self._kind == 'mllama':
            tiles = self._normal(sizes['max_num_tiles'], 3, px, px)
            used, ratio = 3, 3  # one row of three tiles is the third grid
            tiles[used:] = 0
            states = mllama_vision(self._config, self._weights, tiles, ratio, used)
            flat = states.reshape(-1, states.shape[-1])
            return VisionInputs(tiles, (1, 1, used), 0), flat
        tiles = self._normal(2 - number, 3, px, px)  # the first image has two tiles
        rows = np.concatenate(
            [internvl_vision(self._config, self._weights, tile) for tile in tiles]
        )
        return VisionInputs(tiles, (len(tiles), 1, len(tiles)), len(rows)), rows

    def _prefill(self, talk: Talk, start: int, scenario: str, stop: int | None = None) -> None:
        """Append the talk's tokens [start, stop), in the pieces that the engine plans."""
        # What runs took on the emulator says nothing, and must not choose the way.
        self.engine.plan_by(DEAR_STEPS)
        plan = self.engine.plan_prefill((len(talk.ids) if stop is None else stop) - start)
        self.plans[scenario] = plan
        for count in plan:
            self.engine.prefill(talk.part(start, start + count), self._features)
            start += count

    def _prefill_text(self, count: int) -> None:
        self.engine.prefill(self._text_part(count), {})

    def _text_part(self, count: int) -> PromptPart:
        return PromptPart(np.full(count, 30), np.arange(count), count)

    def _answer(self, talk: Talk, scenario: str, steps: int) -> None:
        """Compare; then give the reference's tokens as the answer, and compare after each."""
        trace = self._compare(talk, scenario)
        for step in range(steps):
            token = trace.tokens[-1]
            self.engine.decode(token, talk.next_position)
            self._add_token(talk, token)
            trace = self._compare(talk, f'{scenario}, step {step + 1}')

    def _compare(self, talk: Talk, where: str) -> Trace:
        return self._note(where, talk, self._token())

    def _note(self, where: str, talk: Talk, token: int) -> Trace:
        axes = np.array(talk.positions).T
        positions = axes if talk.axes > 1 else axes[0]
        rows = np.array(talk.rows, np.float32)
        trace = self._decoder.run(rows, positions, talk.image, talk.added())
        row = self.engine.last_hidden()
        # Newer compilers put the final norm into the last block, older ones into the head.
        score = max(cosine(row, trace.normed[-1]), cosine(row, trace.hidden[-1][-1]))
        self.points.append(Point(where, score, token, trace.tokens[-1], trace.gap()))
        return trace

    @property
    def _patch_values(self) -> int:
        sizes = self._config['vision_config']
        values: int = 3 * sizes['temporal_patch_size'] * sizes['patch_size'] ** 2
        return values

    @property
    def _table_side(self) -> int:
        return math.isqrt(self._config['vision_config'].get('num_position_embeddings', 0))

    def _patch_vision(
        self,
        patches: Array,
        places: NDArray[np.int32],
        groups: Sequence[int] = (),
    ) -> tuple[Array, list[Array]]:
        vision = _PATCH_VISION.get(self._kind)
        if vision is not None:
            return vision(self._config, self._weights, patches, places, groups), []
        return qwen3vl_vision(self._config, self._weights, patches, places, groups)

    def _note_vision(
        self, where: str, found: VisionFeatures, rows: Array, deep: Sequence[Array]
    ) -> None:
        """Note the worst cosine among the rows in the prompt and those for the first layers."""
        limits = self.engine.limits
        kept = [_float_rows(found, limits), *_float_deepstack(found, limits)]
        scores = [cosine(a, b) for a, b in zip(kept, [rows, *deep], strict=True)]
        self.points.append(Point(where, min(scores), 0, 0, 0.0))

    def _token(self) -> int:
        chosen = self.engine.next_token(GREEDY)
        return chosen.token if isinstance(chosen, ChosenToken) else int(chosen.values.argmax())

    def _refused(self, what: str, function: Any, *arguments: Any) -> None:
        held = self.engine.kv.length
        try:
            function(*arguments)
        except EdgeVlmError as error:
            self.refusals[what] = (type(error).__name__, error.message)
        else:
            self.refusals[what] = ('nothing', 'was not refused')
        assert self.engine.kv.length == held

    def _length_point(self) -> Point:
        return Point('empty after a refusal', 1.0, self.engine.kv.length, 0, np.inf)

    def _normal(self, *shape: int) -> NDArray[np.float32]:
        return self._random.standard_normal(shape).astype(np.float32)


_SAMPLINGS: Final = (
    SamplingParameters(temperature=1.0),
    SamplingParameters(temperature=0.7, top_p=0.8),
    SamplingParameters(temperature=1.5, top_p=0.5),
    SamplingParameters(temperature=1.5),
)


def _patch_places(height: int, width: int) -> NDArray[np.int32]:
    """Return row and column of each patch, block by block of 2 x 2; written out plainly."""
    return np.array(
        [
            (2 * a + i, 2 * b + j)
            for a in range(height // 2)
            for b in range(width // 2)
            for i in range(2)
            for j in range(2)
        ],
        np.int32,
    )


def _float_rows(features: VisionFeatures, limits: EngineLimits) -> Array:
    kept: Any = features  # spliced features have rows, cross-attended ones states
    return _floats(kept.rows if hasattr(kept, 'rows') else kept.states, limits)


def _float_deepstack(features: VisionFeatures, limits: EngineLimits) -> list[Array]:
    kept: Any = features
    return [_floats(rows, limits) for rows in getattr(kept, 'deepstack', ())]


def _floats(rows: NDArray[Any], limits: EngineLimits) -> Array:
    if limits.hidden_dtype == 'bfloat16':
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


def run_on_table(name: str, path: str, table: str) -> Outcome:
    """Run words and an image with embeddings from a table on disk, as --embedding_disk builds do.

    The fixture's own embedding nets are left aside.
    """
    from edge_vlm_ros.engines.sophgo import engine, opening
    from edge_vlm_ros.engines.sophgo.model_files import contract_of

    def without_nets(bmodel: BmodelFile) -> Contract:
        return replace(contract_of(bmodel), embeds_on_chip=False)

    with (
        patch.object(opening, 'contract_of', without_nets),
        patch.object(engine, 'find_embedding_table', lambda _: Path(table)),
    ):
        return run_scenarios(name, path, ('text', 'ahead'))


def run_values(name: str, path: str, values: Mapping[str, NDArray[Any]]) -> list[Point]:
    """Run the one prompt whose reference values were kept, for files of an older compiler."""
    fixture = FIXTURES[name]
    files = ModelFiles(
        name, fixture.chip, Path(path).parent, Path(path).parent, {'model': Path(path)}
    )
    engine = open_engine(fixture.chip, files)
    assert isinstance(engine, SophgoEngine)
    ids, image = values['ids'].astype(np.int64), int(values['img'])
    count, rows = len(ids), int((ids == ids[image]).sum())
    inputs = VisionInputs(values['vit_in0'], (1, 1, 1), rows)
    features = {0: engine.encode(inputs)}
    vision = _float_rows(features[0], engine.limits)
    points = [Point('vision', cosine(vision, values['vit'].reshape(vision.shape)), 0, 0, 0.0)]
    span = VisionSpan(0, image, image + rows)
    engine.prefill(PromptPart(ids, np.arange(count), count, (span,)), features)
    tokens = [int(token) for token in values['tokens']]
    second = values.get('ids2')

    def note(index: int) -> None:
        chosen = engine.next_token(GREEDY)
        assert isinstance(chosen, ChosenToken)
        gap = float(np.diff(np.sort(values['logits'][index])[-2:])[0])
        score = cosine(engine.last_hidden(), values['rows'][index])
        points.append(Point(f'token {index}', score, chosen.token, tokens[index], gap))

    note(0)
    for index in range(1, 4):
        engine.decode(tokens[index - 1], engine.kv.length)
        note(index)
    if second is not None:
        start = engine.kv.length
        stop = start + len(second)
        part = PromptPart(second.astype(np.int64), np.arange(start, stop), stop)
        at = 0
        for piece in engine.plan_prefill(len(second)):
            engine.prefill(part.slice(at, at + piece), {})
            at += piece
        note(4)
        engine.decode(tokens[4], stop)
        note(5)
    engine.close()
    return points
