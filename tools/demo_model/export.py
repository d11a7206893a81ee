"""Export the demo model, and rebuild its checkpoint from what was exported.

python -m tools.demo_model.export --run DIR --to edge_vlm_ros/demo/model
python -m tools.demo_model.export --rebuild edge_vlm_ros/demo/model --to DIR
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from support.internvl_files import preprocessor_config
from support.onnx_weights import GRAPHS

from tools.demo_model import onnx_graphs
from tools.demo_model.checkpoint import SHIPPED, rebuild
from tools.demo_model.model import DemoModel
from tools.demo_model.size import ModelSize

_MAX_POSITIONS: Final = 1024


def config(size: ModelSize, end_id: int, pad_id: int) -> dict[str, Any]:
    """Return config.json, as an `internvl_chat` checkpoint has it."""
    vision = {
        'architectures': ['InternVisionModel'],
        'model_type': 'intern_vit_6b',
        'attention_dropout': 0.0,
        'dropout': 0.0,
        'drop_path_rate': 0.0,
        'hidden_act': 'gelu',
        'hidden_size': size.vision_width,
        'image_size': size.image_px,
        'initializer_factor': 1.0,
        'initializer_range': 0.02,
        'intermediate_size': size.vision_mlp,
        'layer_norm_eps': 1e-6,
        'norm_type': 'layer_norm',
        'num_attention_heads': size.vision_width // size.vision_head,
        'num_channels': 3,
        'num_hidden_layers': size.vision_layers,
        'patch_size': size.patch_px,
        'qk_normalization': False,
        'qkv_bias': True,
        'torch_dtype': 'float16',
        'use_flash_attn': False,
    }
    language = {
        'architectures': ['Qwen2ForCausalLM'],
        'model_type': 'qwen2',
        'attention_dropout': 0.0,
        'bos_token_id': pad_id,
        'eos_token_id': end_id,
        'head_dim': size.head,
        'hidden_act': 'silu',
        'hidden_size': size.width,
        'initializer_range': 0.02,
        'intermediate_size': size.mlp,
        'max_position_embeddings': _MAX_POSITIONS,
        'max_window_layers': size.layers,
        'num_attention_heads': size.heads,
        'num_hidden_layers': size.layers,
        'num_key_value_heads': size.kv_heads,
        'rms_norm_eps': size.rms_eps,
        'rope_scaling': None,
        'rope_theta': size.rope_theta,
        'sliding_window': None,
        'tie_word_embeddings': True,
        'torch_dtype': 'float16',
        'use_cache': True,
        'use_sliding_window': False,
        'vocab_size': size.vocabulary,
    }
    return {
        'architectures': ['InternVLChatModel'],
        'model_type': 'internvl_chat',
        'downsample_ratio': 0.5,
        'dynamic_image_size': False,
        'force_image_size': size.image_px,
        'hidden_size': size.width,
        'llm_config': language,
        'max_dynamic_patch': 1,
        'min_dynamic_patch': 1,
        'pad2square': False,
        'ps_version': 'v2',
        'select_layer': -1,
        'system_message': '',
        'template': 'internvl2_5',
        'tie_word_embeddings': True,
        'torch_dtype': 'float16',
        'use_thumbnail': False,
        'vision_config': vision,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + '\n')


def half_weights(model: DemoModel) -> dict[str, NDArray[np.float16]]:
    """Return the state dict in float16."""
    return {
        k: v.detach().float().numpy().astype(np.float16) for k, v in model.state_dict().items()
    }


def write_folder(model: DemoModel, tokenizer_folder: Path, folder: Path) -> None:
    """Write the whole model folder, beside the old one first, and then file by file into place."""
    part = folder.with_name(f'.{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    (part / 'onnx').mkdir(parents=True)
    weights, size = half_weights(model), model.size
    graphs = (
        onnx_graphs.vision_encoder(weights, size),
        onnx_graphs.embed_tokens(weights, size),
        onnx_graphs.decoder(weights, size),
    )
    for name, graph in zip(GRAPHS, graphs, strict=True):
        onnx.save(graph, part / 'onnx' / f'{name}.onnx')
    for name in ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'):
        shutil.copyfile(tokenizer_folder / name, part / name)
    added = {
        t['content']: t['id']
        for t in json.loads((part / 'tokenizer.json').read_text())['added_tokens']
    }
    end_id, pad_id = added['<|im_end|>'], added['<|endoftext|>']
    _write_json(part / 'config.json', config(size, end_id, pad_id))
    _write_json(part / 'preprocessor_config.json', preprocessor_config(size.image_px, crops=False))
    _write_json(
        part / 'generation_config.json',
        {'do_sample': False, 'eos_token_id': [end_id, pad_id], 'pad_token_id': pad_id},
    )
    for path in sorted(p for p in part.rglob('*') if p.is_file()):
        place = folder / path.relative_to(part)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    shutil.rmtree(part)


def load_run(run: Path) -> DemoModel:
    """Return the newest model of a training run; an untrained one where there is none."""
    import torch

    torch.manual_seed(1)
    model = DemoModel(ModelSize())
    if (run / 'joint.pt').exists():
        model.load_state_dict(torch.load(run / 'joint.pt')['model'])
        return model
    if (run / 'sight.pt').exists():
        sight = torch.load(run / 'sight.pt')
        model.vision_model.load_state_dict(sight['vision'])
        model.mlp1.load_state_dict(sight['mlp1'])
    if (run / 'words.pt').exists():
        model.language_model.load_state_dict(torch.load(run / 'words.pt')['language'])
    return model


def check(model: DemoModel, folder: Path) -> float:
    """Return the largest difference of ONNX Runtime's logits from torch's, for one prompt."""
    import torch

    from tools.demo_model.packing import Packer
    from tools.demo_model.runtime import OnnxModel

    half = DemoModel(model.size)
    half.load_state_dict({k: torch.from_numpy(v).float() for k, v in half_weights(model).items()})
    packer = Packer.from_folder(folder, model.size.tokens)
    dialogue = [('Describe what you see.', 'Nothing.'), ('What is moving?', 'Nothing is moving.')]
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((2, 3, model.size.image_px, model.size.image_px))
    pixels = drawn.astype(np.float32)
    batch = packer.pack(2, [[[dialogue]]])
    with torch.no_grad():
        tokens = half.see(torch.from_numpy(pixels))[1].reshape(1, -1, model.size.width)
        wanted = half.language_model(batch.packed, tokens).numpy()
    runner = OnnxModel(folder)
    past = runner.read_prefix(packer.prefix(2), runner.see(pixels))
    ids, turns = packer.segment(dialogue)
    logits, _ = runner.read_on(past, np.array([ids]), keep=0)
    at = np.flatnonzero(turns) - 1
    return float(np.abs(logits[0, at] - wanted).max())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', type=Path, default=Path('build/demo_model/run'))
    parser.add_argument('--rebuild', type=Path, help='a model folder to rebuild a checkpoint of')
    parser.add_argument('--to', type=Path, default=SHIPPED)
    args = parser.parse_args()
    if args.rebuild:
        rebuild(args.rebuild, args.to)
        return
    model = load_run(args.run)
    write_folder(model, args.run, args.to)
    files = sorted(p for p in args.to.rglob('*') if p.is_file())
    for path in files:
        print(f'{path.stat().st_size:>10,}  {path}')
    print(f'{sum(p.stat().st_size for p in files):>10,}  in all; sizes {asdict(model.size)}')
    print(f'largest difference of a logit from torch: {check(model, args.to):.2g}')


if __name__ == '__main__':
    main()
