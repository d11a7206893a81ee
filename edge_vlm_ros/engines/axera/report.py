"""What a set's files say of themselves."""

from __future__ import annotations

from edge_vlm_ros.core import EngineLimits, ModelFiles, ModelReport, ReportTable
from edge_vlm_ros.engines.axera.chip_memory import free_chip_bytes
from edge_vlm_ros.engines.axera.graphs import StackShapes
from edge_vlm_ros.engines.axera.memory_guard import file_bytes, needed_bytes
from edge_vlm_ros.engines.axera.refused import SDK_WITH_BF16
from edge_vlm_ros.engines.axera.vision_shapes import VisionShapes

_MIB = 1 << 20
_BF16_BYTES = 2


def _size(vision: VisionShapes) -> str:
    rows, columns = vision.grid
    return f'{rows} x {columns} patches' if vision.patches else f'{vision.tile_px} px'


def _rows(shapes: StackShapes) -> str:
    if shapes.steps_words_only:
        return f'{shapes.position_rows} rows of positions for a chunk, 1 for a token'
    return f'{shapes.position_rows} row{"s" * (shapes.position_rows > 1)} of positions'


def describe(
    files: ModelFiles, shapes: StackShapes, vision: VisionShapes, limits: EngineLimits
) -> ModelReport:
    """Put into words what was read from a set's first layer, head, vision tower and table."""
    window = max(group.history + group.chunk for group in shapes.prefill)
    cache = 2 * _BF16_BYTES * shapes.layers * shapes.capacity * shapes.kv_width
    free = free_chip_bytes()
    layers = len(vision.deepstack)
    takes = f'{needed_bytes(files) / _MIB:.0f} MiB, {file_bytes(files) / _MIB:.0f} MiB of files'
    pixels = 'bytes' if vision.takes_bytes else 'float32'
    facts = [
        ('chip', files.chip),
        ('layout', f'{shapes.layers} decoder layers, one axmodel each'),
        ('hidden size', f'{shapes.hidden}'),
        ('KV width', f'{shapes.kv_width} ({_rows(shapes)})'),
        ('vocabulary', f'{limits.vocab_size} rows of embeddings, {shapes.vocab} scores'),
        ('context', f'{limits.context_tokens} tokens'),
        ('prompt in chunks', f'{window} tokens; longer ones go on through decode steps'),
        ('images in a prompt', f'{limits.max_images}'),
        ('image', f'{_size(vision)}, {vision.rows} tokens, {pixels}'),
        *([('deepstack', f'features for the first {layers} layers')] if layers else []),
        ('SDK', f'{SDK_WITH_BF16.get(files.chip, "?")} or newer'),
        ('chip memory', f'{takes}, {cache / _MIB:.0f} MiB KV'),
        ('free chip memory', 'not reported' if free is None else f'{free / _MIB:.0f} MiB'),
    ]
    rows = [
        *((f'{g.index}', 'prefill', f'{g.chunk}', f'{g.history}') for g in shapes.prefill),
        *((f'{g.index}', 'decode', '1', f'{g.capacity}') for g in shapes.decode),
    ]
    rows.sort(key=lambda row: int(row[0]))
    table = ReportTable(
        'shape groups of a layer', ('group', 'for', 'tokens', 'cache rows'), tuple(rows)
    )
    return ModelReport(tuple(facts), (table,))
