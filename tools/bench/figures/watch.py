"""How often one look of a watch is a false alarm on the demo model's fresh scenes, by threshold.

The whole table: `python -m tools.bench.watch.calibration`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench.figure import Figure

SCENES = 120
THRESHOLD = 0.95
AGAINST = 'the same looks without a threshold'


def measure() -> Iterator[Figure]:
    """Ask what watches ask, in good light and at dusk."""
    from edge_vlm_ros.serving import VlmPipeline
    from tools.bench.watch.calibration import calibration_error, looks, rows

    with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
        for name, is_dusk in (('', False), ('_at_dusk', True)):
            found = looks(pipeline, is_dusk=is_dusk, scenes=SCENES)
            none, some = rows(found, (0.0, THRESHOLD))
            yield Figure(
                f'watch_calibration_error{name}', 100 * calibration_error(found), 'percent'
            )
            yield Figure(
                f'watch_false_alarms{name}',
                1000 * some.false_alarms,
                'of 1000 looks',
                1000 * none.false_alarms,
                AGAINST,
            )
