"""What the node says of itself: one word for people, one reason for refused requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_vlm_ros.nodes.status import NodeStatus
from edge_vlm_ros.serving import EnginePhase, EngineState, LoadProgress, ModelInfo

LOADING = EngineState(EnginePhase.STARTING, message='loading the model')
READY = EngineState(EnginePhase.READY, ModelInfo(model='demo', chip='cpu'))
STALLED = EngineState(EnginePhase.STALLED, message='no sign of life for 3 s')
UNCONFIGURED = NodeStatus('unconfigured', 'cpu')
INACTIVE = NodeStatus('inactive', 'cpu', model='demo', engine=READY)
ACTIVE = replace(INACTIVE, lifecycle='active')


@pytest.mark.parametrize(
    ('status', 'state', 'refusal'),
    [
        (UNCONFIGURED, 'unconfigured', 'the node is unconfigured'),
        (replace(UNCONFIGURED, failure='no chip'), 'failed: no chip', 'no chip'),
        (INACTIVE, 'inactive', 'the node is inactive'),
        (replace(INACTIVE, engine=LOADING), 'loading', 'the node is inactive'),
        (ACTIVE, 'ready', ''),
        (replace(ACTIVE, engine=LOADING), 'loading', ''),
        (
            replace(ACTIVE, engine=replace(LOADING, loading=LoadProgress(12, 30))),
            'loading: 12 of 30 parts',
            '',
        ),
        (replace(ACTIVE, engine=replace(LOADING, restarts=1)), 'restarting', ''),
        (replace(ACTIVE, engine=STALLED), 'stalled: no sign of life for 3 s', ''),
        (
            replace(ACTIVE, lifecycle='deactivating'),
            'deactivating',
            'the node is deactivating',
        ),
        (NodeStatus('finalized', 'cpu'), 'finalized', 'the node is finalized'),
        (replace(INACTIVE, lifecycle='finalized'), 'finalized', 'the node is finalized'),
    ],
)
def test_a_state_is_a_word_and_requests_are_taken_while_the_node_is_active(status, state, refusal):
    assert (status.state, status.refusal) == (state, refusal)


def test_the_hardware_is_the_chip_and_its_devices():
    assert INACTIVE.hardware == 'cpu'
    assert replace(INACTIVE, chip='bm1684x', device_ids=(0, 2)).hardware == 'bm1684x 0,2'
