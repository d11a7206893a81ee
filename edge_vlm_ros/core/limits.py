"""What one loaded model can do; read from its files, never assumed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds and abilities of one engine with one model.

    Attributes:
        context_tokens: Prompt and answer together.
        longest_prompt: Tokens that prefill takes from an empty cache.
        prefill_chunk: Tokens of one uninterruptible prefill step; 0 = the whole prompt at once.
        max_images: Images (tiles, for a tiling family) in one prompt; 0 = as the context allows.
        can_extend_prefix: Whether prefill may start after a prefix that is already in the cache.
        can_truncate: Whether the cache can be cut back to any length. Models with linear attention
            keep a state beside or instead of rows, which cannot: it goes on, is dropped, or goes
            back to a snapshot (see `engines.base.KVCache`).
        snapshots: Lengths to go back to that such a cache keeps at once, in each slot; 0 = none,
            and where it can be cut anywhere none is needed.
        samples_on_chip: Whether the sampling head runs on the chip.
        has_logits: Whether logits can be read (confidence, choices, seeded sampling).
        vocab_size: Rows of the embedding table.
        hidden_size: Width of the language model.
        hidden_dtype: 'float32', 'float16' or 'bfloat16'.
        tile_px: Side of the square the vision tower takes; 0 = any size.
        tiles_per_frame: Tiles that one frame is cut into at most unless the user asks for more: as
            many as the chip takes without a long wait; 0 = as the model was trained.
        frames_per_question: Frames of a clip that one question shows at most unless the user asks
            for more: as many as the chip takes without a long wait; 0 = as many as are wanted.
        max_patches: Patches that one run of the vision tower takes, for families that cut images
            into patches (Qwen2-VL); 0 = any number.
        patches_per_frame: Patches that one image is cut into at most unless the user asks for
            more: as many as the chip takes without a long wait; 0 = as the model was trained.
        max_grid_side: Patches along one side of an image at most (rows of a compiled position
            table); 0 = any number.
        patch_grid: Rows and columns of patches, where the vision tower takes this grid only;
            (0, 0) = any grid.
        kv_slots: Prompts that the KV cache can hold side by side, one of them selected
            (`Engine.select_kv`).
        deepstack_layers: Decoder layers, from the first on, after which an image's features of
            earlier layers of the vision tower are added to its tokens (`Spliced.deepstack`).
    """

    context_tokens: int
    longest_prompt: int
    prefill_chunk: int
    max_images: int
    can_extend_prefix: bool
    samples_on_chip: bool
    has_logits: bool
    vocab_size: int
    hidden_size: int
    hidden_dtype: str = 'float32'
    tile_px: int = 0
    tiles_per_frame: int = 0
    frames_per_question: int = 0
    max_patches: int = 0
    patches_per_frame: int = 0
    max_grid_side: int = 0
    patch_grid: tuple[int, int] = (0, 0)
    kv_slots: int = 1
    deepstack_layers: int = 0
    can_truncate: bool = True
    snapshots: int = 0
