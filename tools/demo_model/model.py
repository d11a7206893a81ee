"""The demo model in torch: InternVL3's layout and state dict names, at a toy size.

Attention is written as plain matrix products: on CPUs the fused bfloat16 kernel is slower for
sequences this short, most of all backwards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from tools.demo_model.size import ModelSize


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return attention over (..., heads, tokens, head width)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1) @ v


class VisionAttention(nn.Module):
    """Self-attention of the vision tower."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.head = size.vision_head
        self.qkv = nn.Linear(size.vision_width, 3 * size.vision_width)
        self.proj = nn.Linear(size.vision_width, size.vision_width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, width) for the same."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, d // self.head, self.head).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(attend(q, k, v).transpose(1, 2).reshape(b, t, d))
        return out


class VisionMlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size.vision_width, size.vision_mlp)
        self.fc2 = nn.Linear(size.vision_mlp, size.vision_width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, width) for the same."""
        out: Tensor = self.fc2(fn.gelu(self.fc1(x)))
        return out


class VisionLayer(nn.Module):
    """One layer of the vision tower."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        width = size.vision_width
        self.norm1 = nn.LayerNorm(width, 1e-6)
        self.attn = VisionAttention(size)
        self.ls1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = VisionMlp(size)
        self.ls2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, width) for the same."""
        x = x + self.ls1 * self.attn(self.norm1(x))
        out: Tensor = x + self.ls2 * self.mlp(self.norm2(x))
        return out


class VisionEmbeddings(nn.Module):
    """Patches, a class token in front, and their places."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        width = size.vision_width
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embedding = nn.Conv2d(3, width, size.patch_px, size.patch_px)
        self.position_embedding = nn.Parameter(torch.randn(1, size.grid**2 + 1, width) * 0.02)
        self._grid, self._patch = size.grid, size.patch_px

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (n, 1 + patches, width) for (n, 3, px, px)."""
        b, g, p = pixels.shape[0], self._grid, self._patch
        conv = self.patch_embedding
        # The convolution as one matrix product: its backward pass is several times faster.
        patches = pixels.view(b, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(b, g * g, -1)
        x = fn.linear(patches, conv.weight.flatten(1), conv.bias)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(b, -1, -1), x], 1)
        return x + self.position_embedding


class VisionEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(size) for _ in range(size.vision_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, width) for the same."""
        for layer in self.layers:
            x = layer(x)
        return x


class VisionModel(nn.Module):
    """The vision tower: (n, 3, px, px) to (n, 1 + patches, width)."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(size)
        self.encoder = VisionEncoder(size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (n, 1 + patches, width) for (n, 3, px, px)."""
        out: Tensor = self.encoder(self.embeddings(pixels))
        return out


class RmsNorm(nn.Module):
    """Root mean square norm, as in Qwen2."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised over its last side."""
        return fn.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Packed(NamedTuple):
    """Many dialogues about many prefixes: each sees its own prefix and itself.

    `prefix` (P,) is shared text with image places `image_at`; `segments` are (B, K, L) ids, one
    tensor for each length class; `wanted` are flat places whose next token is predicted.
    """

    prefix: Tensor
    image_at: Tensor
    segments: list[Tensor]
    wanted: Tensor


class Rope(NamedTuple):
    """Cosines and sines, (tokens, head width)."""

    cos: Tensor
    sin: Tensor

    def turn(self, x: Tensor) -> Tensor:
        """Rotate (..., tokens, head width)."""
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin


class Layout(NamedTuple):
    """How packed dialogues lie in one row of tokens: `rows` prefixes, then each length class.

    `classes` gives for each (dialogues a row, tokens of each), and their rotation and mask.
    """

    rows: int
    classes: list[tuple[tuple[int, int], Rope, Tensor]]


class LanguageAttention(nn.Module):
    """Causal attention with grouped keys and values, over packed dialogues."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = size.heads, size.kv_heads, size.head
        self.q_proj = nn.Linear(size.width, size.width)
        self.k_proj = nn.Linear(size.width, size.kv_heads * size.head)
        self.v_proj = nn.Linear(size.width, size.kv_heads * size.head)
        self.o_proj = nn.Linear(size.width, size.width, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Return (all tokens, width) for the same."""
        rows = layout.rows
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        group = self.heads // self.kv_heads
        outs: list[Tensor] = []
        at = 0
        kept: tuple[Tensor, Tensor] | None = None
        for (count, length), rope, mask in layout.classes:
            here = slice(at, at + rows * count * length)
            at = here.stop

            def split(
                y: Tensor, here: slice = here, n: int = rows * count, t: int = length
            ) -> Tensor:
                return y[here].view(n, t, -1, self.head).transpose(1, 2)

            qs, ks, vs = rope.turn(split(q)), rope.turn(split(k)), split(v)
            if kept is None:
                kept = (ks, vs)
            else:
                ks, vs = (
                    torch.cat([_repeat_rows(p, count), y], 2)
                    for p, y in zip(kept, (ks, vs), strict=True)
                )
            seen = attend(qs, ks.repeat_interleave(group, 1), vs.repeat_interleave(group, 1), mask)
            outs.append(seen.transpose(1, 2).reshape(rows * count * length, -1))
        out: Tensor = self.o_proj(torch.cat(outs))
        return out


def _repeat_rows(x: Tensor, count: int) -> Tensor:
    return x[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)


class LanguageMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.width, size.mlp, bias=False)
        self.up_proj = nn.Linear(size.width, size.mlp, bias=False)
        self.down_proj = nn.Linear(size.mlp, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (tokens, width) for the same."""
        out: Tensor = self.down_proj(fn.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class LanguageLayer(nn.Module):
    """One decoder layer."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(size.width, size.rms_eps)
        self.self_attn = LanguageAttention(size)
        self.post_attention_layernorm = RmsNorm(size.width, size.rms_eps)
        self.mlp = LanguageMlp(size)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Return (all tokens, width) for the same."""
        x = x + self.self_attn(self.input_layernorm(x), layout)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class LanguageStack(nn.Module):
    """Qwen2's `model`: embeddings, layers, norm."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocabulary, size.width)
        self.layers = nn.ModuleList(LanguageLayer(size) for _ in range(size.layers))
        self.norm = RmsNorm(size.width, size.rms_eps)


class LanguageModel(nn.Module):
    """Qwen2 for causal language, with tied embeddings."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.model = LanguageStack(size)
        self._head, self._theta = size.head, size.rope_theta

    def forward(
        self, packed: Packed, image: Tensor, watched: list[Tensor] | None = None
    ) -> Tensor:
        """Return logits, (wanted, vocabulary).

        Args:
            packed: Prefix and dialogues.
            image: (rows, image places, width); rows with no places for text alone.
            watched: Gets the image places as they are after each layer, for losses in training.
        """
        stack, rows, long = self.model, image.shape[0], len(packed.prefix)
        prefix = stack.embed_tokens(packed.prefix).expand(rows, -1, -1)
        prefix = prefix.index_copy(1, packed.image_at, image.to(prefix.dtype))
        x = torch.cat(
            [
                prefix.reshape(rows * long, -1),
                *(stack.embed_tokens(s.flatten()) for s in packed.segments),
            ]
        )
        dtype = torch.bfloat16 if torch.is_autocast_enabled('cpu') else x.dtype
        shapes = [(1, long), *((s.shape[1], s.shape[2]) for s in packed.segments)]
        starts = [0, *([long] * len(packed.segments))]
        layout = Layout(
            rows,
            [
                (shape, self._rope(start, shape[1], dtype), _mask(start, shape[1], dtype))
                for start, shape in zip(starts, shapes, strict=True)
            ],
        )
        for layer in stack.layers:
            x = layer(x, layout)
            if watched is not None:
                watched.append(x[: rows * long].view(rows, long, -1)[:, packed.image_at])
        return fn.linear(stack.norm(x[packed.wanted]), stack.embed_tokens.weight)

    def _rope(self, start: int, count: int, dtype: torch.dtype) -> Rope:
        steps = self._theta ** (-torch.arange(0, self._head, 2) / self._head)
        angles = torch.arange(start, start + count)[:, None] * steps
        angles = torch.cat([angles, angles], -1)
        return Rope(angles.cos().to(dtype), angles.sin().to(dtype))


def _mask(past: int, count: int, dtype: torch.dtype) -> Tensor:
    later = torch.ones(count, count, dtype=torch.bool).triu(1)
    own = torch.zeros(count, count, dtype=dtype).masked_fill(later, -1e4)
    return torch.cat([torch.zeros(count, past, dtype=dtype), own], 1)


class DemoModel(nn.Module):
    """The whole model, with the names of an `internvl_chat` checkpoint."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.size = size
        self.vision_model = VisionModel(size)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(4 * size.vision_width),
            nn.Linear(4 * size.vision_width, size.width),
            nn.GELU(),
            nn.Linear(size.width, size.width),
        )
        self.language_model = LanguageModel(size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=min(0.03, 0.6 * module.in_features**-0.5))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.04)

    def see(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches, (n, grid**2, width), and the visual tokens, (n, tokens, width)."""
        patches = self.vision_model(pixels)[:, 1:]
        n, half = patches.shape[0], self.size.grid // 2
        # Pixel shuffle by 0.5, ps_version v2: 2 x 2 patches to one token, row by row.
        shuffled = patches.view(n, half, 2, half, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return patches, self.mlp1(shuffled.reshape(n, half * half, -1))
