"""Which contract a bmodel keeps, read from its nets: the files themselves, no emulator."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo import contract as contract_module
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel
from edge_vlm_ros.engines.sophgo.contract import read_contract
from edge_vlm_ros.engines.sophgo.cross import CrossPrefill
from edge_vlm_ros.engines.sophgo.heads import LogitsHead, SamplerKind, TokenHead
from edge_vlm_ros.engines.sophgo.layers import LayerKind
from edge_vlm_ros.engines.sophgo.nets import AddressMode, DType, NetInfo, TensorInfo
from edge_vlm_ros.engines.sophgo.prefill.chunk import ChunkPrefill
from edge_vlm_ros.engines.sophgo.prefill.dynamic import DynamicPrefill
from edge_vlm_ros.engines.sophgo.prefill.history import HistoryPrefill
from edge_vlm_ros.engines.sophgo.prefill.static import StaticPrefill
from edge_vlm_ros.engines.sophgo.report import report_of
from edge_vlm_ros.engines.sophgo.towers.aspect import AspectTower
from edge_vlm_ros.engines.sophgo.towers.deepstack import DeepstackTower
from edge_vlm_ros.engines.sophgo.towers.fixed_grid import FixedGridTower
from edge_vlm_ros.engines.sophgo.towers.patch import PatchTower
from edge_vlm_ros.engines.sophgo.towers.tile import TileTower
from edge_vlm_ros.engines.sophgo.towers.window import WindowTower

BF16, F16, F32, I32 = DType.BFLOAT16, DType.FLOAT16, DType.FLOAT32, DType.INT32


@pytest.fixture
def nets_of(bmodel):
    """Return a function from a fixture's name to its nets, free to be changed."""
    return lambda name: dict(read_bmodel(bmodel(name)).nets)


def changed(net, side, index, **changes):
    """Return a net with one tensor changed."""
    tensors = list(getattr(net, side))
    tensors[index] = replace(tensors[index], **changes)
    return replace(net, **{side: tuple(tensors)})


@pytest.mark.parametrize(
    ('name', 'family', 'form', 'half'),
    [
        ('internvl3_static_bf16_bm1684x', 'internvl', StaticPrefill(128), BF16),
        ('internvl3_static_bf16_bm1688', 'internvl', StaticPrefill(128), BF16),
        ('internvl3_awq_bm1684x', 'internvl', StaticPrefill(128), F16),
        (
            'internvl3_dynamic_bf16_bm1684x',
            'internvl',
            DynamicPrefill(128, takes_mask=False),
            BF16,
        ),
        ('internvl3_history_bf16_bm1688', 'internvl', ChunkPrefill(64, 256), BF16),
        ('internvl3_history_sample_bf16_bm1684x', 'internvl', ChunkPrefill(64, 256), BF16),
        ('internvl3_oldhistory_bf16_bm1684x', 'internvl', HistoryPrefill(64, 128), BF16),
        ('internvl3_oldhistory_v121_bf16_bm1684x', 'internvl', HistoryPrefill(64, 128), BF16),
        ('internvl2_bf16_bm1684x', 'internvl', StaticPrefill(64), BF16),
        ('internvl2_w4bf16_bm1684x', 'internvl', StaticPrefill(64), BF16),
        ('internvl2_v111_bf16_bm1684x', 'internvl', StaticPrefill(64), BF16),
        ('qwen2vl_v2_bf16_bm1684x', 'qwen2_vl', StaticPrefill(64), BF16),
        ('qwen2vl_v4_f16_bm1684x', 'qwen2_vl', StaticPrefill(64), F16),
        ('qwen2vl_convert_bf16_bm1684x', 'qwen2_vl', StaticPrefill(128), BF16),
        ('qwen3vl_static_bf16_bm1684x', 'qwen3_vl', StaticPrefill(128), BF16),
        (
            'qwen3vl_dynamic_bf16_bm1684x',
            'qwen3_vl',
            DynamicPrefill(128, takes_mask=False),
            BF16,
        ),
        ('mllama_2024_bf16_bm1684x', 'mllama', CrossPrefill(64), BF16),
        ('mllama_convert_bf16_bm1684x', 'mllama', CrossPrefill(64), BF16),
    ],
)
def test_family_prefill_form_and_half_type_are_read_from_the_nets(
    nets_of, name, family, form, half
):
    contract = read_contract(nets_of(name))
    assert (contract.family, contract.prefill, contract.decoder.half) == (family, form, half)
    assert contract.embeds_on_chip
    assert contract.unknown == ()


def test_vision_towers_are_told_apart(nets_of):
    towers = {
        name: read_contract(nets_of(name)).tower
        for name in (
            'internvl2_bf16_bm1684x',
            'internvl3_static_bf16_bm1684x',
            'qwen2vl_v2_bf16_bm1684x',
            'qwen2vl_v4_f16_bm1684x',
            'mllama_2024_bf16_bm1684x',
        )
    }
    assert isinstance(towers['internvl2_bf16_bm1684x'], TileTower)
    assert towers['internvl2_bf16_bm1684x'].net == 'intern_vit'
    assert towers['internvl3_static_bf16_bm1684x'].net == 'vit'
    video = towers['qwen2vl_v2_bf16_bm1684x']
    assert isinstance(video, PatchTower)
    assert (video.mask, video.most_side) == (F32, 100)  # its output is float32: a video export
    half = towers['qwen2vl_v4_f16_bm1684x']
    assert (half.mask, half.most_side) == (F16, 0)
    canvas = towers['mllama_2024_bf16_bm1684x']
    assert isinstance(canvas, AspectTower)
    assert canvas.tiles == 4


def test_heads_are_told_apart(nets_of):
    heads = [
        read_contract(nets_of(name)).head
        for name in (
            'internvl2_bf16_bm1684x',
            'internvl3_sample_bf16_bm1684x',
            'qwen2vl_v2_bf16_bm1684x',
        )
    ]
    assert heads[0] == TokenHead()
    assert isinstance(heads[1], LogitsHead)
    assert heads[1].sampler.kind is SamplerKind.SAMPLE
    assert heads[2].sampler.kind is SamplerKind.PENALTY
    assert heads[2].has_greedy


def test_layers_that_attend_to_the_image_are_found(nets_of):
    decoder = read_contract(nets_of('mllama_2024_bf16_bm1684x')).decoder
    assert [kind for kind in decoder.kinds if kind is LayerKind.CROSS]
    assert decoder.kinds[0] is LayerKind.SELF
    assert decoder.cross.heads > decoder.kv_heads  # repeated before they are cached


def test_decode_stages_of_history_builds_are_found(nets_of):
    decoder = read_contract(nets_of('internvl3_history_bf16_bm1688')).decoder
    assert decoder.capacities == (256, 128, 64)
    assert decoder.context == 256


def test_caches_outside_the_nets_are_noticed(nets_of):
    assert read_contract(nets_of('internvl2_bf16_bm1684x')).decoder.cache_in_net
    assert not read_contract(nets_of('internvl2_basic_bf16_bm1684x')).decoder.cache_in_net


def test_positions_on_three_axes_are_noticed(nets_of):
    for name, shape in (
        ('qwen2vl_v2_bf16_bm1684x', (3, 1, 64)),
        ('qwen2vl_convert_bf16_bm1684x', (3, 128)),
        ('internvl3_static_bf16_bm1684x', (1, 128)),
    ):
        assert read_contract(nets_of(name)).decoder.position_shape == shape


def test_a_tower_of_one_grid_is_known_by_its_patches(nets_of):
    nets = nets_of('qwen2vl_v2_bf16_bm1684x')
    pixels = TensorInfo('input_states', F32, ((600, 1176),))
    rows = TensorInfo('hidden_states', F32, ((150, 128),))
    nets['vit'] = NetInfo('vit', False, AddressMode.BASIC, (pixels,), (rows,))  # noqa: FBT003
    assert read_contract(nets).tower == FixedGridTower('vit', 20, 30)
    nets['vit'] = changed(nets['vit'], 'inputs', 0, shapes=((640, 1176),))
    with pytest.raises(ModelFileError, match=r'expected \(600, 1176\), found \(640, 1176\)'):
        read_contract(nets)


def test_a_build_without_embedding_nets_reads_a_table(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    del nets['embedding'], nets['embedding_cache']
    assert not read_contract(nets).embeds_on_chip


def test_a_layer_of_another_width_is_refused_by_name(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    nets['block_1'] = changed(nets['block_1'], 'inputs', 0, shapes=((1, 128, 64),))
    with pytest.raises(
        ModelFileError,
        match=r'net block_1: input_states: expected \(1, 128, 128\), found \(1, 128, 64\)',
    ):
        read_contract(nets)


def test_a_layer_of_another_half_type_is_refused(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    nets['block_cache_1'] = changed(nets['block_cache_1'], 'inputs', 2, dtype=F16)
    with pytest.raises(
        ModelFileError,
        match='net block_cache_1: attention_mask: expected bfloat16, found float16',
    ):
        read_contract(nets)


def test_embeddings_of_another_half_type_are_refused(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    nets['embedding'] = changed(nets['embedding'], 'outputs', 0, dtype=F16)
    with pytest.raises(ModelFileError, match=r'net embedding: .*expected bfloat16, found float16'):
        read_contract(nets)


@pytest.mark.parametrize(
    ('gone', 'message'),
    [
        ('block_1', r'expected nets block_0 .* found 1 and 2 of them'),
        ('block_cache_0', r'expected nets block_0 .* found 2 and 1 of them'),
        ('lm_head', 'expected a net lm_head, found none'),
        ('embedding_cache', 'expected a net embedding_cache, found none'),
    ],
)
def test_a_missing_net_is_named(nets_of, gone, message):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    del nets[gone]
    with pytest.raises(ModelFileError, match=message):
        read_contract(nets)


def test_a_history_build_that_lacks_a_net_is_refused(nets_of):
    nets = nets_of('internvl3_history_bf16_bm1688')
    del nets['block_kv_1']
    with pytest.raises(ModelFileError, match='expected a net block_kv_1, found none'):
        read_contract(nets)


def test_blocks_that_write_over_their_history_are_refused(nets_of):
    nets = nets_of('internvl3_oldhistory_bf16_bm1688')
    tagged = {'address_mode': AddressMode.IO_TAG}
    nets['block_0'] = replace(nets['block_0'], **tagged)
    with pytest.raises(ModelFileError, match=r'net block_0: address mode 2: .*--addr_mode basic'):
        read_contract(nets)


def test_the_compiled_hazard_has_that_address_mode(bmodel):
    net = read_bmodel(bmodel('hazard_tagged_bm1688')).nets['block_0']
    assert (net.address_mode, len(net.inputs)) == (AddressMode.IO_TAG, 5)


def test_decode_nets_without_plain_memory_are_refused(nets_of):
    nets = nets_of('internvl2_bf16_bm1684x')
    nets['block_cache_1'] = replace(nets['block_cache_1'], address_mode=AddressMode.BASIC)
    with pytest.raises(ModelFileError, match='in all layers, found BASIC, IO_ALONE'):
        read_contract(nets)


def with_input(net, index, **changes):
    """Return a net one of whose inputs is another."""
    inputs = list(net.inputs)
    inputs[index] = replace(inputs[index], **changes)
    return replace(net, inputs=tuple(inputs))


@pytest.mark.parametrize(
    ('index', 'changes', 'message'),
    [
        (1, {'shapes': ((64, 3),)}, r'expected \(64, 2\) int32'),
        (1, {'dtype': DType.FLOAT32}, r'expected \(64, 2\) int32'),
        (2, {'shapes': ((1, 1, 64, 32),)}, r'expected \(1, 64, 64\)'),
        (3, {'shapes': ((1, 1, 32, 64),)}, r'expected \(1, 64, 64\)'),
        (3, {'dtype': BF16}, 'expected float32, found bfloat16'),
        (4, {'shapes': ((64,),)}, r'expected \(16,\) int32, found \(64,\)'),
        (4, {'dtype': DType.FLOAT32}, r'expected \(16,\) int32'),
        # Another patch: five inputs are not always Qwen2.5-VL.
        (
            0,
            {'shapes': ((64, 1024),)},
            r'5 inputs, the first \(64, 1024\): .*Qwen2\.5-VL',
        ),
    ],
)
def test_a_tower_with_windows_is_refused_for_what_does_not_fit(nets_of, index, changes, message):
    nets = nets_of('qwen2_5vl_static_bf16_bm1684x')
    nets['vit'] = with_input(nets['vit'], index, **changes)
    with pytest.raises(ModelFileError, match=message):
        read_contract(nets)


@pytest.mark.parametrize('name', ['static_bf16_bm1684x', 'dynamic_bf16_bm1684x'])
def test_a_tower_with_windows_is_known_by_its_inputs(nets_of, name):
    contract = read_contract(nets_of(f'qwen2_5vl_{name}'))
    assert contract.tower == WindowTower('vit', 64, DType.FLOAT32, 'dynamic' in name, 0)
    assert contract.family == 'qwen2_5_vl'
    limits = contract.limits(384)
    assert (limits.max_patches, limits.patch_grid, limits.tile_px) == (64, (0, 0), 0)


class PairTower(NamedTuple):
    """A tower that this engine does not drive, as a module of its own would hold it."""

    patches: int

    signature = (4, 2)
    models = 'Pairs'
    family = 'pairs'
    is_attended = False

    @classmethod
    def read(cls, net):
        return cls(net.inputs[0].shape[0])

    def limit(self, limits):
        return replace(limits, max_patches=self.patches)

    def describe(self):
        return f'{self.patches} patches in pairs'

    def start(self, runtime, half):
        return runtime, half


def test_one_more_tower_is_a_class_and_a_row(nets_of, bmodel, monkeypatch):
    monkeypatch.setattr(contract_module, '_TOWERS', (*contract_module._TOWERS, PairTower))
    nets = nets_of('qwen2vl_convert_bf16_bm1684x')
    vit = nets['vit']
    nets['vit'] = replace(vit, inputs=(*vit.inputs, vit.inputs[1]))
    contract = read_contract(nets)
    patches = vit.inputs[0].shape[0]
    assert contract.tower == PairTower(patches)
    assert contract.family == 'pairs'
    limits = contract.limits(384)
    assert limits.max_patches == patches
    report = report_of(read_bmodel(bmodel('qwen2vl_convert_bf16_bm1684x')), contract, limits)
    assert dict(report.facts)['vision tower'] == f'{patches} patches in pairs'
    assert contract.tower.start('runtime', 'half') == ('runtime', 'half')


@pytest.mark.parametrize('form', ['static', 'dynamic'])
def test_features_for_the_first_layers_are_read_from_the_tower(nets_of, bmodel, form):
    name = f'qwen3vl_{form}_bf16_bm1684x'
    contract = read_contract(nets_of(name))
    assert isinstance(contract.tower, DeepstackTower)
    assert (contract.tower.patches, contract.tower.layers) == (64, 3)
    assert contract.tower.is_dynamic is (form == 'dynamic')
    limits = contract.limits(384)
    assert (limits.deepstack_layers, limits.max_patches) == (3, 64)
    decoder = contract.decoder
    kv = decoder.kv_heads * decoder.head_dim
    own = decoder.hidden + 128 if form == 'static' else 2 * (decoder.hidden + kv)
    values = 128 * (own + limits.deepstack_layers * decoder.hidden)
    cache = 0 if decoder.cache_in_net else decoder.cache_bytes
    assert contract.own_bytes == 2 * values + contract.tower_bytes + cache
    report = dict(report_of(read_bmodel(bmodel(name)), contract, limits).facts)
    assert 'features for 3 layers beside the prompt' in report['vision tower']
    assert report['nets not used'] == 'none'


def _without_add(nets):
    del nets['add']


def _with_a_shorter_add(nets):
    for index in (0, 1):
        nets['add'] = changed(nets['add'], 'inputs', index, shapes=((64 * 128,),))
    nets['add'] = changed(nets['add'], 'outputs', 0, shapes=((64 * 128,),))


def _with_too_few_layers(nets):
    del nets['block_3'], nets['block_cache_3']


def _with_a_dynamic_mask(nets):
    nets['vit'] = replace(nets['vit'], is_dynamic=True)


def _with_narrow_features(nets):
    nets['vit'] = changed(nets['vit'], 'outputs', 2, shapes=((16, 64),))


def _without_more_outputs(nets):
    del nets['add']
    nets['vit'] = replace(nets['vit'], outputs=nets['vit'].outputs[:1])


def _with_places_of_floats(nets):
    nets['vit'] = changed(nets['vit'], 'inputs', 2, dtype=F32)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (_without_add, 'expected a net add, found none'),
        (_with_a_shorter_add, r'net add: input0: expected 128 rows of 128, found \(8192,\)'),
        (_with_too_few_layers, 'features for 3 layers .* the decoder has 3 layers'),
        (_with_a_dynamic_mask, 'expected a mask in a static net and none in a dynamic one'),
        (_with_narrow_features, r'net vit: .*list\.1.*: expected \(16, 128\), found \(16, 64\)'),
        (_without_more_outputs, 'this is not Qwen3-VL but a later model'),
        (_with_places_of_floats, 'net vit: pos_idx: expected int32, found float32'),
    ],
)
def test_features_that_cannot_be_added_are_refused(nets_of, damage, message):
    nets = nets_of('qwen3vl_static_bf16_bm1684x')
    damage(nets)
    with pytest.raises(ModelFileError, match=message):
        read_contract(nets)


@pytest.mark.parametrize(
    ('name', 'buffers', 'masks', 'detours'),
    [
        ('internvl3_static_bf16_bm1684x', 1, 128 * 128, 0),
        ('internvl3_dynamic_bf16_bm1684x', 2, 0, 2),
        ('internvl3_history_bf16_bm1688', 2, 0, 2),
        ('internvl3_oldhistory_bf16_bm1684x', 1, 64 * (64 + 128), 2),
    ],
)
def test_memory_beside_the_file_is_what_the_engine_allocates(
    nets_of, name, buffers, masks, detours
):
    """That it allocates just that is measured in test_memory.py."""
    contract = read_contract(nets_of(name))
    rows, decoder = contract.prefill.rows, contract.decoder
    cache = 0 if decoder.cache_in_net else decoder.cache_bytes
    kv = decoder.kv_heads * decoder.head_dim
    values = rows * (buffers * decoder.hidden + detours * kv) + masks
    assert contract.tower_bytes == 4 * 3 * 112 * 112 + 2 * 16 * decoder.hidden
    assert contract.own_bytes == 2 * values + contract.tower_bytes + cache


def test_an_image_to_attend_to_takes_memory_too(nets_of):
    contract = read_contract(nets_of('mllama_2024_bf16_bm1684x'))
    decoder = contract.decoder
    image = decoder.cross.rows * (64 + decoder.hidden)
    assert decoder.cache_in_net
    own = 2 * (64 * decoder.hidden + 64 * 64 + image) + contract.tower_bytes
    assert contract.own_bytes == own


def test_cross_attention_in_a_build_that_is_not_static_is_refused(nets_of):
    nets = nets_of('mllama_2024_bf16_bm1684x')
    nets['block_0'] = replace(nets['block_0'], is_dynamic=True)
    with pytest.raises(
        ModelFileError, match=r'net block_1: cross-attention in a build that is not static'
    ):
        read_contract(nets)


def test_a_tower_of_features_to_attend_to_needs_layers_that_do(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    nets['vit'] = nets_of('mllama_2024_bf16_bm1684x')['vit']
    with pytest.raises(
        ModelFileError, match=r'cross-attention layers: none, .*vision tower of AspectTower'
    ):
        read_contract(nets)


def test_a_decode_net_of_another_build_is_refused(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    nets['block_cache_1'] = replace(
        nets['block_cache_1'], outputs=nets['block_cache_1'].outputs[:2]
    )
    with pytest.raises(ModelFileError, match='found 5 and 2'):
        read_contract(nets)


def test_a_mask_that_does_not_go_with_the_cache_is_refused(nets_of):
    nets = nets_of('internvl3_history_bf16_bm1688')
    mask = nets['block_cache_0'].inputs[2]
    wrong = (*mask.shapes[:2], (1, 1, 1, 64))
    nets['block_cache_0'] = changed(nets['block_cache_0'], 'inputs', 2, shapes=wrong)
    with pytest.raises(
        ModelFileError,
        match=r'block_cache_0: attention_mask: expected \(1, 1, 1, 65\), found \(1, 1, 1, 64\)',
    ):
        read_contract(nets)


def test_nets_that_nothing_uses_are_reported(nets_of):
    nets = nets_of('internvl3_static_bf16_bm1684x')
    nets['embedding_lora'] = nets['embedding']
    assert read_contract(nets).unknown == ('embedding_lora',)
